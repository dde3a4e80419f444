/* The tokenizer: SentencePiece BPE with byte fallback, in C.
 *
 * encode followed by decode returns the same bytes for any input, NUL and invalid UTF-8 included:
 * identity normalization, no dummy prefix, no whitespace folding, and byte pieces for bytes that
 * SentencePiece would replace. */
#pragma once

#include "core/base/error.h"
#include "data/text/left_out.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct nd_tokenizer nd_tokenizer;

typedef struct nd_tokenizer_train_options {
    const char *const *inputs; /* files or directories */
    int input_count;
    const char *glob;   /* for directories, e.g. "*.rs"; NULL: every file */
    const char *output; /* the model file to write */
    int vocab_size;
    int64_t max_bytes;       /* of text sampled evenly from the inputs; 0: all */
    bool binary;             /* files that are not text are read too */
    bool skip_bad;           /* bad lines of JSON Lines are counted, else an error */
    const char *jsonl_field; /* of inputs that are JSON Lines; NULL: they are text */
    int threads;
    uint64_t seed;
} nd_tokenizer_train_options;

/* Trains, and writes the model file durably: the same bytes for the same files, whatever their
 * order and paths, and for any number of threads. `left_out` (may be NULL) counts skipped files.
 * Errors: ND_EDATA, ND_EIO. */
nd_status nd_tokenizer_train(const nd_tokenizer_train_options *options, nd_left_out *left_out);

/* Reads a model file. The caller owns the tokenizer. Errors: ND_EDATA naming the file. */
nd_status nd_tokenizer_open(const char *path, nd_tokenizer **tokenizer);
/* From the bytes of a model file, e.g. the copy in a checkpoint; `name` is for messages. */
nd_status nd_tokenizer_open_memory(const void *bytes, size_t size, const char *name,
                                   nd_tokenizer **tokenizer);
void nd_tokenizer_close(nd_tokenizer *tokenizer);

int nd_tokenizer_vocab_size(const nd_tokenizer *tokenizer);
int nd_tokenizer_eos(const nd_tokenizer *tokenizer);
const char *nd_tokenizer_sha256(const nd_tokenizer *tokenizer); /* hex digits of the model file */
const void *nd_tokenizer_model(const nd_tokenizer *tokenizer, size_t *size); /* the file's bytes */

/* Tokens of `text`, without BOS or EOS. The caller frees *ids with free(). Thread-safe.
 * Errors: ND_EDATA naming the byte offset. */
nd_status nd_tokenizer_encode(const nd_tokenizer *tokenizer, const char *text, size_t bytes,
                              int32_t **ids, size_t *count);

/* The greatest n <= bytes at which any text that begins with `text` may be cut without changing its
 * tokens; 0 when there is no such place. */
size_t nd_tokenizer_safe_cut(const nd_tokenizer *tokenizer, const char *text, size_t bytes);

/* The bytes of `ids`; control pieces have none. The caller frees *text, which has a NUL after
 * *bytes bytes. Errors: ND_EDATA naming the index of an id out of range. */
nd_status nd_tokenizer_decode(const nd_tokenizer *tokenizer, const int32_t *ids, size_t count,
                              char **text, size_t *bytes);
