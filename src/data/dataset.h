/* A dataset: the windows of one split that training or evaluation reads, from HDF5 shards in a
 * directory or from synthetic text. Read-only after opening; safe to read from several threads. */
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
    const char *tokenizer_sha256; /* expected; NULL: any */
    int64_t n_samples;            /* synthetic: number of windows */
    uint64_t seed;                /* synthetic */
} nd_dataset_options;

/* Opens the shards of the split that the index lists (data_directory.h), in the order of their
 * names, and checks their headers and lengths against it. Few files stay open. The caller owns the
 * dataset. Errors: ND_EDATA naming the file, what was expected and what was found. */
nd_status nd_dataset_open(const nd_dataset_options *options, nd_dataset **dataset);
void nd_dataset_close(nd_dataset *dataset);

/* Shard `index` in the order of names; NULL after the last and for synthetic text. */
const struct nd_shard *nd_dataset_shard(const nd_dataset *dataset, int index);

/* The tokens and windows of a split according to the directory's index, without opening shards; 0
 * when it has no such shards. Errors: ND_EDATA when the directory has no whole index. */
nd_status nd_dataset_measure(const char *path, const char *split, int64_t seq_length,
                             int64_t *tokens, int64_t *windows);

/* Windows start every seq_length tokens; a shard's tail shorter than a window is not used. */
int64_t nd_dataset_window_count(const nd_dataset *dataset);
/* Tokens of the split, tails included; and the seq_length of the options. */
int64_t nd_dataset_token_count(const nd_dataset *dataset);
int64_t nd_dataset_seq_length(const nd_dataset *dataset);

/* The SHA-256 of the tokenizer the shards were packed with, as hex; "" when synthetic. */
const char *nd_dataset_tokenizer_sha256(const nd_dataset *dataset);

/* The number of tokens of that tokenizer, at most the model's vocab_size; 0 when synthetic. */
int64_t nd_dataset_vocab_size(const nd_dataset *dataset);

/* Bytes of text in the split (n_bytes of the shards), for bits per byte; 0 when synthetic. */
int64_t nd_dataset_text_bytes(const nd_dataset *dataset);

/* Copies window `index` into tokens[0 .. seq_length]. Thread-safe. Errors: ND_EDATA naming the
 * file, the position and the token when a token is out of range or the data cannot be read. */
nd_status nd_dataset_read_window(const nd_dataset *dataset, int64_t index, int32_t *tokens);
