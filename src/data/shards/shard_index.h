/* The index of a data set: index.json, which lists its shards and is written last. A directory
 * without a whole index is not a data set (docs/formats.md). */
#pragma once

#include "core/base/error.h"
#include "core/base/sha256.h"
#include "data/shards/shard.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ND_SHARD_INDEX_NAME "index.json"

enum { ND_SHARD_INDEX_VERSION = 1, ND_SHARD_NAME_SIZE = 256 };

typedef struct nd_indexed_shard {
    char name[ND_SHARD_NAME_SIZE]; /* <split>_*.h5, without a directory */
    char split[ND_SHARD_SPLIT_SIZE];
    int64_t n_tokens, n_documents;
    int64_t bytes; /* of the file */
    char sha256[ND_SHA256_HEX_SIZE];
} nd_indexed_shard;

typedef struct nd_shard_index {
    int64_t vocab_size;
    char tokenizer_sha256[ND_SHA256_HEX_SIZE];
    nd_indexed_shard *shards; /* [count], by strictly growing name */
    size_t count, capacity;
} nd_shard_index;

/* Parses the text of an index.json of any origin; `name` is for messages. The caller frees the
 * index, after an error too. Errors: ND_EDATA naming shard and key, what was expected and found;
 * ND_ENOMEM. */
nd_status nd_shard_index_parse(const void *bytes, size_t size, const char *name,
                               nd_shard_index *index);

/* Appends the shard at `path`, which it reads. An empty index adopts the tokenizer and vocabulary
 * of its first shard. Errors: ND_EDATA, also for a shard of another tokenizer or vocabulary;
 * ND_EIO; ND_ENOMEM. */
nd_status nd_shard_index_add(nd_shard_index *index, const char *path);

/* Sorts the shards and writes the index, durably. Errors: ND_EIO, ND_ENOMEM. */
nd_status nd_shard_index_write(nd_shard_index *index, const char *path);

void nd_shard_index_free(nd_shard_index *index);

/* Whether an entry's name is UTF-8, begins with its split, and has no control characters and no
 * directory, so that it cannot refer to a file elsewhere. */
bool nd_shard_index_names(const nd_indexed_shard *shard);

/* Whether `name` is that of a shard, train_*.h5 or val_*.h5, followed by `suffix`. */
int nd_shard_name_matches(const char *name, const char *suffix);
