/* A dataset: the windows of one split that training or evaluation reads. Either HDF5 shards in a
 * directory or synthetic text. Read-only after opening and safe to read from several threads. */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct nd_dataset nd_dataset;

typedef struct nd_dataset_options {
    bool synthetic;
    const char *path;             /* directory of shards; unused when synthetic */
    const char *split;            /* "train" or "val" */
    int64_t seq_length;           /* a window is seq_length + 1 consecutive tokens */
    int64_t vocab_size;           /* every token must be below it */
    const char *tokenizer_sha256; /* expected, or NULL to take the shards' own */
    int64_t n_samples;            /* synthetic: number of windows */
    uint64_t seed;                /* synthetic */
} nd_dataset_options;

/* Opens all shards of the split that the index lists (data_directory.h), in the order of their names, and checks their
 * headers, lengths and agreement with it. Few files stay open. Errors: ND_EDATA naming the file, what was expected and
 * found. */
nd_status nd_dataset_open(const nd_dataset_options *options, nd_dataset **dataset);
void nd_dataset_close(nd_dataset *dataset);

/* Shard `index` in the order of names; NULL beyond the last, and of synthetic data. */
const struct nd_shard *nd_dataset_shard(const nd_dataset *dataset, int index);

/* What the directory's index says of a split, without opening its shards: its tokens and windows, both 0
 * when it has no such shards. Errors: ND_EDATA when the directory has no whole index. */
nd_status nd_dataset_measure(const char *path, const char *split, int64_t seq_length,
                             int64_t *tokens, int64_t *windows);

/* Windows start every seq_length tokens; a shard's tail shorter than a window is not used. */
int64_t nd_dataset_window_count(const nd_dataset *dataset);
/* Tokens of the split, tails included, and what the options said. */
int64_t nd_dataset_token_count(const nd_dataset *dataset);
int64_t nd_dataset_seq_length(const nd_dataset *dataset);

/* The SHA-256 of the tokenizer the shards were packed with, as hex; "" when synthetic. */
const char *nd_dataset_tokenizer_sha256(const nd_dataset *dataset);

/* Tokens of that tokenizer, which may be fewer than the model's vocabulary has rows; 0 when synthetic. */
int64_t nd_dataset_vocab_size(const nd_dataset *dataset);

/* Bytes of text of the split's tokens (attribute n_bytes of the shards): bits per byte needs
 * it. 0 when synthetic. */
int64_t nd_dataset_text_bytes(const nd_dataset *dataset);

/* Copies window `index` into tokens[0 .. seq_length]. Thread-safe. Errors: ND_EDATA naming the
 * file, the position and the token when a token is out of range or the data cannot be read. */
nd_status nd_dataset_read_window(const nd_dataset *dataset, int64_t index, int32_t *tokens);
