/* Writes a GGUF file: declare pairs and tensors, then write the tensors' data in the same order.
 * The writer adds the digest of the data. */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct nd_gguf_writer nd_gguf_writer;

/* The caller closes the writer. Errors: ND_ENOMEM. */
nd_status nd_gguf_writer_create(nd_gguf_writer **writer);

/* Declare a pair. nd_gguf_writer_start reports if memory ran out. */
void nd_gguf_put_u32(nd_gguf_writer *writer, const char *key, uint32_t value);
void nd_gguf_put_f32(nd_gguf_writer *writer, const char *key, float value);
void nd_gguf_put_bool(nd_gguf_writer *writer, const char *key, bool value);
void nd_gguf_put_text(nd_gguf_writer *writer, const char *key, const char *value);

/* Declare an array of `count` elements: i32, f32, or texts, to be put one by one after it. */
void nd_gguf_put_i32s(nd_gguf_writer *writer, const char *key, const int32_t *values, size_t count);
void nd_gguf_put_f32s(nd_gguf_writer *writer, const char *key, const float *values, size_t count);
void nd_gguf_put_texts(nd_gguf_writer *writer, const char *key, size_t count);
void nd_gguf_put_element(nd_gguf_writer *writer, const char *text, size_t bytes);

/* Declares a tensor [rows, cols] (a vector when `rows` is 1 and `vector`), of a type in
 * ggml_types.h whose block divides cols. */
void nd_gguf_put_tensor(nd_gguf_writer *writer, const char *name, uint32_t type, int64_t rows,
                        int64_t cols, bool vector);

/* Creates the temporary file and writes all declarations. Errors: ND_EIO, ND_ENOMEM. */
nd_status nd_gguf_writer_start(nd_gguf_writer *writer, const char *path);

/* Write bytes of the current tensor, in parts, and end it. Errors: ND_EIO; ND_EINTERNAL when their
 * number is not the declared one. */
nd_status nd_gguf_write(nd_gguf_writer *writer, const void *bytes, size_t size);
nd_status nd_gguf_writer_end_tensor(nd_gguf_writer *writer);

/* Writes the digest and renames the file to its path, durably. Errors: ND_EIO. */
nd_status nd_gguf_writer_finish(nd_gguf_writer *writer);

/* Frees the writer and removes an unfinished file. NULL is allowed. */
void nd_gguf_writer_close(nd_gguf_writer *writer);
