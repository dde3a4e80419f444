/* Writing a .safetensors file: u64 length of the header, the header as JSON, the tensors' bytes. Texts and
 * tensors are declared, then the tensors' values are written in the same order. */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Our own key of the metadata: SHA-256 of everything behind the header, 64 hex digits. */
#define ND_SAFETENSORS_DIGEST_KEY "nanochat_dist.data_sha256"

typedef struct nd_safetensors_writer nd_safetensors_writer;

nd_status nd_safetensors_writer_create(nd_safetensors_writer **writer);

/* One text of the file's metadata. Errors: ND_ENOMEM. */
nd_status nd_safetensors_put_text(nd_safetensors_writer *writer, const char *key,
                                  const char *value);

/* A tensor [rows, cols], or [cols] as a `vector`, in bf16 or f32. Errors: ND_ENOMEM. */
nd_status nd_safetensors_put_tensor(nd_safetensors_writer *writer, const char *name, bool bf16,
                                    int64_t rows, int64_t cols, bool vector);

/* Starts the file PATH and writes the header. Errors: ND_EIO, ND_ENOMEM. */
nd_status nd_safetensors_writer_start(nd_safetensors_writer *writer, const char *path);
nd_status nd_safetensors_write(nd_safetensors_writer *writer, const void *bytes, size_t size);

/* Makes the file appear under its name. Errors: ND_EINTERNAL when other bytes were written than declared;
 * ND_EIO. */
nd_status nd_safetensors_writer_finish(nd_safetensors_writer *writer);

/* Frees the writer and, unless it is finished, removes the file. NULL is allowed. */
void nd_safetensors_writer_close(nd_safetensors_writer *writer);
