/* What a file of unknown origin meets, as functions that fuzzers call: launch/fuzz.sh, and
 * tests/exchange/test_fuzz_corpus.c, which works with any compiler. They look at everything a
 * reader gives out, so that a sanitizer sees what lies outside. */
#pragma once

#include <stddef.h>
#include <stdint.h>

void nd_fuzz_gguf(const uint8_t *bytes, size_t size);
void nd_fuzz_safetensors(const uint8_t *bytes, size_t size);
void nd_fuzz_config_json(const uint8_t *bytes, size_t size);
void nd_fuzz_ini(const uint8_t *bytes, size_t size);
void nd_fuzz_shard_index(const uint8_t *bytes, size_t size);

/* As it is, and with the checksum that its text asks for, without which nothing behind it
 * is read. */
void nd_fuzz_manifest(const uint8_t *bytes, size_t size);
