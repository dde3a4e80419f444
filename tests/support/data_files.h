/* Text, tokenizers and shards for tests, made from seeds. */
#pragma once

#include "data/tokenizer/tokenizer.h"

#include <stddef.h>
#include <stdint.h>

#define ND_TEST_SHA "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

/* Uniform in 0 .. below - 1, element `index` of the stream of `seed`. */
uint32_t nd_test_random(uint64_t seed, uint64_t index, uint32_t below);

/* `bytes` bytes that look like source code; the caller frees it. */
char *nd_test_code(uint64_t seed, size_t bytes);

/* Trains a tokenizer of 400 pieces on nd_test_code; the path is DIRECTORY/tok.model. */
void nd_test_train_tokenizer(const char *directory, uint64_t seed);

/* Writes DIRECTORY/index.json over the shards there, whatever they are: what a file that cannot be
 * opened holds is 0, and the tokenizer is that of the first that can. */
void nd_test_index(const char *directory);

/* Writes a shard of `tokens`, one document, and the index of its directory. */
void nd_test_write_shard(const char *path, int64_t vocab_size, const char *sha256,
                         const char *split, const int32_t *tokens, size_t count);

/* Writes DIRECTORY/train_<number>.h5 with tokens first, first + 1, ... of a vocabulary of 65536. */
void nd_test_write_counting_shard(const char *directory, int number, int32_t first, size_t count);

/* DIRECTORY/name, static. */
const char *nd_test_path(const char *directory, const char *name);
