/* A shard: one HDF5 file of tokens (docs/formats.md).
 *
 * Reading bypasses HDF5, whose calls take a global lock and copy through filters: a shard is opened
 * with HDF5 once for the file offsets of its chunks, and tokens are read with pread(). A chunk's
 * checksum is verified at its first read. */
#pragma once

#include "core/base/error.h"
#include "core/base/sha256.h"

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

#define ND_SHARD_TOKENS "tokens"
#define ND_SHARD_DOC_OFFSETS "doc_offsets"

enum {
    ND_SHARD_FORMAT_VERSION = 1,
    ND_SHARD_CHUNK_TOKENS = 1 << 16,
    ND_SHARD_SPLIT_SIZE = 16, /* room for "train" or "val" */
    ND_SHARD_UINT16_VOCAB = 1 << 16
};

typedef struct nd_shard {
    char *path;
    int64_t vocab_size;
    int64_t n_tokens;
    int64_t n_bytes; /* of text */
    int64_t n_documents;
    char tokenizer_sha256[ND_SHA256_HEX_SIZE];
    char split[ND_SHARD_SPLIT_SIZE];
    char sha256[ND_SHA256_HEX_SIZE]; /* of the file, from the index; "" without one */
    int token_bytes;                 /* 2 or 4 */
    int64_t chunk_tokens;
    int64_t chunk_count;
    uint64_t *chunk_offsets;   /* [chunk_count], in the file */
    _Atomic uint8_t *verified; /* [chunk_count] */
    int fd;                    /* -1 after nd_shard_close_file */
    ino_t inode;               /* what nd_shard_reopen_file expects */
    off_t file_bytes;
} nd_shard;

/* Opens a shard and checks everything but the tokens. The caller closes it, unless it failed.
 * Errors: ND_EDATA naming the file, what was expected and what was found. */
nd_status nd_shard_open(const char *path, nd_shard *shard);
void nd_shard_close(nd_shard *shard);

/* Tokens [first, first + count) as int32. Thread-safe. Errors: ND_EDATA naming the file and the
 * chunk with a wrong checksum, or the position of a token that is not below vocab_size. */
nd_status nd_shard_read(const nd_shard *shard, int64_t first, int64_t count, int32_t *tokens);

/* For many shards with few open files (open_shards.h): nd_shard_read_from reads from another
 * descriptor of the file. nd_shard_close_file closes the shard's own; nd_shard_reopen_file opens
 * another (-1 with ND_OK when the process may not open more files). Errors: ND_EDATA when the file
 * cannot be opened or was replaced. */
nd_status nd_shard_read_from(const nd_shard *shard, int fd, int64_t first, int64_t count,
                             int32_t *tokens);
void nd_shard_close_file(nd_shard *shard);
nd_status nd_shard_reopen_file(const nd_shard *shard, int *fd);
