/* A file written sequentially under a temporary name, with the SHA-256 of its last part, then
 * fsynced and renamed. */
#pragma once

#include "core/base/sha256.h"

#include <stdint.h>

typedef struct nd_out_file nd_out_file;

/* Creates a temporary file beside PATH; the caller finishes or discards it. Errors, also below:
 * ND_EIO naming it. */
nd_status nd_out_file_create(const char *path, nd_out_file **file);

nd_status nd_out_file_write(nd_out_file *file, const void *bytes, size_t size);

/* Writes zeros up to the next multiple of ND_GGUF_ALIGNMENT. */
nd_status nd_out_file_pad(nd_out_file *file);

/* Starts a digest over everything written from now on. */
nd_status nd_out_file_start_digest(nd_out_file *file);

/* Writes the digest, if one was started, 64 hex digits, over the bytes at `digest_offset`, then
 * renames the file to its
 * path, durably. Frees `file`, also when it fails. */
nd_status nd_out_file_finish(nd_out_file *file, int64_t digest_offset);

/* Removes the temporary file and frees `file`. NULL is allowed. */
void nd_out_file_discard(nd_out_file *file);
