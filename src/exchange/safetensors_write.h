/* Writes a .safetensors file: u64 length of the header, the header as JSON, the tensors' bytes.
 * Declare texts and tensors, then write the tensors' values in the same order. */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* This program's own key in the metadata: SHA-256 of everything after the header, 64 hex digits. */
#define ND_SAFETENSORS_DIGEST_KEY "nanochat_dist.data_sha256"

typedef struct nd_safetensors_writer nd_safetensors_writer;

/* The caller closes the writer. Errors: ND_ENOMEM. */
nd_status nd_safetensors_writer_create(nd_safetensors_writer **writer);

/* Declares a text of the metadata. Errors: ND_ENOMEM. */
nd_status nd_safetensors_put_text(nd_safetensors_writer *writer, const char *key,
                                  const char *value);

/* Declares a tensor [rows, cols], or [cols] as a `vector`, in bf16 or f32. Errors: ND_ENOMEM. */
nd_status nd_safetensors_put_tensor(nd_safetensors_writer *writer, const char *name, bool bf16,
                                    int64_t rows, int64_t cols, bool vector);

/* Creates the temporary file with the header; then write the values. Errors: ND_EIO, ND_ENOMEM. */
nd_status nd_safetensors_writer_start(nd_safetensors_writer *writer, const char *path);
nd_status nd_safetensors_write(nd_safetensors_writer *writer, const void *bytes, size_t size);

/* Writes the digest and renames the file to its path, durably. Errors: ND_EINTERNAL when the number
 * of bytes is not the declared one; ND_EIO. */
nd_status nd_safetensors_writer_finish(nd_safetensors_writer *writer);

/* Frees the writer and removes an unfinished file. NULL is allowed. */
void nd_safetensors_writer_close(nd_safetensors_writer *writer);
