/* Writing a GGUF file: pairs and tensors are declared, then the tensors' data is written in the same
 * order. The digest of the data is added by itself. */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct nd_gguf_writer nd_gguf_writer;

nd_status nd_gguf_writer_create(nd_gguf_writer **writer);

/* Pairs. Memory that runs out is reported by nd_gguf_writer_start. */
void nd_gguf_put_u32(nd_gguf_writer *writer, const char *key, uint32_t value);
void nd_gguf_put_f32(nd_gguf_writer *writer, const char *key, float value);
void nd_gguf_put_bool(nd_gguf_writer *writer, const char *key, bool value);
void nd_gguf_put_text(nd_gguf_writer *writer, const char *key, const char *value);

/* An array of `count` elements: i32, f32, or texts, which are put one by one after it. */
void nd_gguf_put_i32s(nd_gguf_writer *writer, const char *key, const int32_t *values, size_t count);
void nd_gguf_put_f32s(nd_gguf_writer *writer, const char *key, const float *values, size_t count);
void nd_gguf_put_texts(nd_gguf_writer *writer, const char *key, size_t count);
void nd_gguf_put_element(nd_gguf_writer *writer, const char *text, size_t bytes);

/* Declares a tensor [rows, cols] (a vector when `rows` is 1 and `vector`), of a type in ggml_types.h
 * whose block divides cols. */
void nd_gguf_put_tensor(nd_gguf_writer *writer, const char *name, uint32_t type, int64_t rows,
                        int64_t cols, bool vector);

/* Starts the file PATH and writes everything declared. Errors: ND_EIO, ND_ENOMEM. */
nd_status nd_gguf_writer_start(nd_gguf_writer *writer, const char *path);

/* Bytes of the current tensor; ended by nd_gguf_writer_end_tensor, which checks their number. */
nd_status nd_gguf_write(nd_gguf_writer *writer, const void *bytes, size_t size);
nd_status nd_gguf_writer_end_tensor(nd_gguf_writer *writer);

/* Makes the file appear under its name. */
nd_status nd_gguf_writer_finish(nd_gguf_writer *writer);

/* Frees the writer and, unless it is finished, removes the file. NULL is allowed. */
void nd_gguf_writer_close(nd_gguf_writer *writer);
