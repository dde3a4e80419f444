#include "exchange/gguf_write.h"

#include "core/base/grow.h"
#include "exchange/ggml_types.h"
#include "exchange/gguf.h"
#include "exchange/out_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Numbers are written in the byte order of memory. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF files are little-endian");

/* A growing memory buffer behind a stdio stream. */
typedef struct buffer {
    FILE *memory;
    char *bytes;
    size_t size;
} buffer;

struct nd_gguf_writer {
    buffer pairs, tensors;
    int64_t pair_count, tensor_count;
    size_t *sizes;      /* [tensor_count] bytes of each tensor */
    size_t capacity;    /* of sizes */
    uint64_t next;      /* offset of the next tensor */
    size_t digest_at;   /* offset of the digest in `pairs` */
    bool out_of_memory; /* in a declaration */
    nd_out_file *out;
    int64_t digest_offset; /* in the file */
    int64_t current;       /* tensor being written */
    size_t written;        /* bytes of it */
};

static bool buffer_open(buffer *p)
{
    p->memory = open_memstream(&p->bytes, &p->size);
    return p->memory != NULL;
}

static void buffer_free(buffer *p)
{
    if (p->memory)
        fclose(p->memory);
    free(p->bytes);
    *p = (buffer){NULL, NULL, 0};
}

nd_status nd_gguf_writer_create(nd_gguf_writer **writer)
{
    nd_gguf_writer *w = calloc(1, sizeof *w);
    *writer = NULL;
    if (!w || !buffer_open(&w->pairs) || !buffer_open(&w->tensors)) {
        nd_gguf_writer_close(w);
        return ND_FAIL(ND_ENOMEM, "no memory for a GGUF header");
    }
    *writer = w;
    return ND_OK;
}

static void put(buffer *p, const void *bytes, size_t size)
{
    if (size > 0)
        fwrite(bytes, 1, size, p->memory);
}

static void put_u64(buffer *p, uint64_t value)
{
    put(p, &value, sizeof value);
}

static void put_u32(buffer *p, uint32_t value)
{
    put(p, &value, sizeof value);
}

static void put_text(buffer *p, const char *text, size_t bytes)
{
    put_u64(p, bytes);
    put(p, text, bytes);
}

static void start_pair(nd_gguf_writer *w, const char *key, nd_gguf_kind kind)
{
    put_text(&w->pairs, key, strlen(key));
    put_u32(&w->pairs, kind);
    w->pair_count++;
}

static void start_array(nd_gguf_writer *w, const char *key, nd_gguf_kind kind, size_t count)
{
    start_pair(w, key, ND_GGUF_ARRAY);
    put_u32(&w->pairs, kind);
    put_u64(&w->pairs, count);
}

void nd_gguf_put_u32(nd_gguf_writer *w, const char *key, uint32_t value)
{
    start_pair(w, key, ND_GGUF_U32);
    put_u32(&w->pairs, value);
}

void nd_gguf_put_f32(nd_gguf_writer *w, const char *key, float value)
{
    start_pair(w, key, ND_GGUF_F32);
    put(&w->pairs, &value, sizeof value);
}

void nd_gguf_put_bool(nd_gguf_writer *w, const char *key, bool value)
{
    const uint8_t byte = value;
    start_pair(w, key, ND_GGUF_BOOL);
    put(&w->pairs, &byte, 1);
}

void nd_gguf_put_text(nd_gguf_writer *w, const char *key, const char *value)
{
    start_pair(w, key, ND_GGUF_TEXT);
    put_text(&w->pairs, value, strlen(value));
}

void nd_gguf_put_i32s(nd_gguf_writer *w, const char *key, const int32_t *values, size_t count)
{
    start_array(w, key, ND_GGUF_I32, count);
    put(&w->pairs, values, count * sizeof *values);
}

void nd_gguf_put_f32s(nd_gguf_writer *w, const char *key, const float *values, size_t count)
{
    start_array(w, key, ND_GGUF_F32, count);
    put(&w->pairs, values, count * sizeof *values);
}

void nd_gguf_put_texts(nd_gguf_writer *w, const char *key, size_t count)
{
    start_array(w, key, ND_GGUF_TEXT, count);
}

void nd_gguf_put_element(nd_gguf_writer *w, const char *text, size_t bytes)
{
    put_text(&w->pairs, text, bytes);
}

void nd_gguf_put_tensor(nd_gguf_writer *w, const char *name, uint32_t type, int64_t rows,
                        int64_t cols, bool vector)
{
    const nd_ggml_type *t = nd_ggml_type_find(type);
    const size_t size = (size_t)rows * ((size_t)cols / t->block_weights * (size_t)t->block_bytes);
    size_t *grown = nd_grown(w->sizes, &w->capacity, (size_t)w->tensor_count + 1, sizeof *grown);
    w->out_of_memory |= !grown;
    if (!grown)
        return;
    w->sizes = grown;
    put_text(&w->tensors, name, strlen(name));
    put_u32(&w->tensors, vector ? 1 : 2);
    put_u64(&w->tensors, (uint64_t)cols);
    if (!vector)
        put_u64(&w->tensors, (uint64_t)rows);
    put_u32(&w->tensors, type);
    put_u64(&w->tensors, w->next);
    w->next += (size + ND_GGUF_ALIGNMENT - 1) / ND_GGUF_ALIGNMENT * ND_GGUF_ALIGNMENT;
    w->sizes[w->tensor_count++] = size;
}

static nd_status write_header(nd_gguf_writer *w)
{
    const uint32_t version = ND_GGUF_VERSION;
    const int64_t counts[2] = {w->tensor_count, w->pair_count};
    ND_TRY(nd_out_file_write(w->out, "GGUF", 4));
    ND_TRY(nd_out_file_write(w->out, &version, sizeof version));
    ND_TRY(nd_out_file_write(w->out, counts, sizeof counts));
    w->digest_offset = (int64_t)(4 + sizeof version + sizeof counts + w->digest_at);
    ND_TRY(nd_out_file_write(w->out, w->pairs.bytes, w->pairs.size));
    ND_TRY(nd_out_file_write(w->out, w->tensors.bytes, w->tensors.size));
    ND_TRY(nd_out_file_pad(w->out));
    return nd_out_file_start_digest(w->out);
}

nd_status nd_gguf_writer_start(nd_gguf_writer *w, const char *path)
{
    char digits[65];
    snprintf(digits, sizeof digits, "%064d", 0);
    nd_gguf_put_text(w, ND_GGUF_DIGEST_KEY, digits);
    if (fflush(w->pairs.memory) != 0 || fflush(w->tensors.memory) != 0 || ferror(w->pairs.memory) ||
        ferror(w->tensors.memory) || w->out_of_memory)
        return ND_FAIL(ND_ENOMEM, "%s: no memory for its header", path);
    w->digest_at = w->pairs.size - 64;
    ND_TRY(nd_out_file_create(path, &w->out));
    return write_header(w);
}

nd_status nd_gguf_write(nd_gguf_writer *w, const void *bytes, size_t size)
{
    w->written += size;
    return nd_out_file_write(w->out, bytes, size);
}

nd_status nd_gguf_writer_end_tensor(nd_gguf_writer *w)
{
    ND_FAIL_IF(w->current >= w->tensor_count || w->written != w->sizes[w->current], ND_EINTERNAL,
               "tensor %" PRId64 " of a GGUF file got %zu bytes; the declared number is another",
               w->current, w->written);
    w->current++;
    w->written = 0;
    return nd_out_file_pad(w->out);
}

nd_status nd_gguf_writer_finish(nd_gguf_writer *w)
{
    ND_FAIL_IF(w->current != w->tensor_count, ND_EINTERNAL,
               "a GGUF file got %" PRId64 " of its %" PRId64 " tensors", w->current,
               w->tensor_count);
    nd_out_file *out = w->out;
    w->out = NULL;
    return nd_out_file_finish(out, w->digest_offset);
}

void nd_gguf_writer_close(nd_gguf_writer *w)
{
    if (!w)
        return;
    nd_out_file_discard(w->out);
    buffer_free(&w->pairs);
    buffer_free(&w->tensors);
    free(w->sizes);
    free(w);
}
