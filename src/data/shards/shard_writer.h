/* Writes one shard (shard.h) under a temporary name and renames it at the end. Holds one chunk of
 * tokens and one of document offsets in memory, whatever the shard's size. */
#pragma once

#include "core/base/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct nd_shard_writer nd_shard_writer;

/* The caller finishes or discards the writer. Errors: ND_EIO, ND_ENOMEM. */
nd_status nd_shard_writer_open(const char *path, int64_t vocab_size, const char *tokenizer_sha256,
                               const char *split, nd_shard_writer **writer);

/* Appends `count` tokens below vocab_size to the open document. Errors: ND_EIO naming the file. */
nd_status nd_shard_writer_add(nd_shard_writer *writer, const int32_t *ids, size_t count);
/* Closes a document of `bytes` bytes of text. */
nd_status nd_shard_writer_end_document(nd_shard_writer *writer, int64_t bytes);
/* Tokens added so far. */
int64_t nd_shard_writer_tokens(const nd_shard_writer *writer);

/* Writes buffered tokens and the attributes, closes, fsyncs, renames. Frees the writer, also when
 * it fails. Errors: ND_EIO naming the file. */
nd_status nd_shard_writer_finish(nd_shard_writer *writer);
/* Removes the unfinished file and frees the writer. */
void nd_shard_writer_discard(nd_shard_writer *writer);
