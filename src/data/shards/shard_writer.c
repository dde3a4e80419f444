#include "data/shards/shard_writer.h"

#include "core/base/durable_file.h"
#include "data/shards/hdf5_arrays.h"
#include "data/shards/hdf5_errors.h"
#include "data/shards/hdf5_lock.h"
#include "data/shards/shard.h"

#include <hdf5.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OFFSETS_CHUNK = 8192 };

/* A growing 1-D dataset, written a chunk at a time. */
typedef struct column {
    hid_t dataset;
    hid_t type; /* in memory; a predefined type, not owned */
    size_t element, chunk;
    char *buffer; /* [chunk] */
    size_t held;
    hsize_t written;
} column;

struct nd_shard_writer {
    char path[PATH_MAX], temporary[PATH_MAX];
    int64_t vocab_size, n_bytes;
    char tokenizer_sha256[ND_SHA256_HEX_SIZE];
    char split[ND_SHARD_SPLIT_SIZE];
    hid_t file;
    column tokens, offsets;
};

static nd_status failed(const nd_shard_writer *w, const char *what)
{
    return ND_FAIL(ND_EIO, "%s: cannot write %s: %s", w->path, what, nd_hdf5_reason());
}

static nd_status column_open(nd_shard_writer *w, column *c, const char *name, hid_t stored,
                             hid_t type, size_t chunk)
{
    const hsize_t none = 0, unlimited = H5S_UNLIMITED, chunk_extent = chunk;
    ND_HDF5_HANDLE space = H5Screate_simple(1, &none, &unlimited);
    ND_HDF5_HANDLE properties = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(properties, 1, &chunk_extent);
    H5Pset_fletcher32(properties);
    H5Pset_obj_track_times(properties, false);
    c->type = type;
    c->element = H5Tget_size(type);
    c->chunk = chunk;
    c->dataset = H5Dcreate2(w->file, name, stored, space, H5P_DEFAULT, properties, H5P_DEFAULT);
    c->buffer = malloc(chunk * c->element);
    ND_FAIL_IF(!c->buffer, ND_ENOMEM, "%s: no memory for a chunk of %s", w->path, name);
    return c->dataset < 0 ? failed(w, name) : ND_OK;
}

static nd_status column_flush(nd_shard_writer *w, column *c)
{
    if (c->held == 0)
        return ND_OK;
    const hsize_t count = c->held, extent = c->written + count;
    if (H5Dset_extent(c->dataset, &extent) < 0)
        return failed(w, "a larger dataset");
    ND_HDF5_HANDLE file = H5Dget_space(c->dataset), memory = H5Screate_simple(1, &count, NULL);
    const bool ok =
        H5Sselect_hyperslab(file, H5S_SELECT_SET, &c->written, NULL, &count, NULL) >= 0 &&
        H5Dwrite(c->dataset, c->type, memory, file, H5P_DEFAULT, c->buffer) >= 0;
    c->written = extent;
    c->held = 0;
    return ok ? ND_OK : failed(w, "tokens");
}

static nd_status add_offset(nd_shard_writer *w, int64_t offset)
{
    column *c = &w->offsets;
    ((uint64_t *)c->buffer)[c->held++] = (uint64_t)offset;
    return c->held == c->chunk ? column_flush(w, c) : ND_OK;
}

/* In the newest file format, whose metadata has checksums; without time stamps. */
static nd_status create_file(nd_shard_writer *w, const char *path)
{
    ND_HDF5_HANDLE creation = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_obj_track_times(creation, false);
    ND_FAIL_IF((size_t)snprintf(w->path, sizeof w->path, "%s", path) >= sizeof w->path - 8, ND_EIO,
               "%s: this path is too long", path);
    memcpy(w->temporary, w->path, sizeof w->path);
    strcat(w->temporary, ND_TEMPORARY_SUFFIX);
    w->file = H5Fcreate(w->temporary, H5F_ACC_TRUNC, creation, nd_hdf5_access(true));
    ND_FAIL_IF(w->file < 0, ND_EIO, "%s: cannot create this file: %s", path, nd_hdf5_reason());
    const bool narrow = w->vocab_size <= ND_SHARD_UINT16_VOCAB;
    ND_TRY(column_open(w, &w->tokens, ND_SHARD_TOKENS, narrow ? H5T_STD_U16LE : H5T_STD_U32LE,
                       narrow ? H5T_NATIVE_UINT16 : H5T_NATIVE_UINT32, ND_SHARD_CHUNK_TOKENS));
    ND_TRY(column_open(w, &w->offsets, ND_SHARD_DOC_OFFSETS, H5T_STD_U64LE, H5T_NATIVE_UINT64,
                       OFFSETS_CHUNK));
    return add_offset(w, 0);
}

nd_status nd_shard_writer_open(const char *path, int64_t vocab_size, const char *tokenizer_sha256,
                               const char *split, nd_shard_writer **writer)
{
    ND_HDF5_LOCKED();
    *writer = NULL;
    nd_hdf5_start();
    nd_shard_writer *w = calloc(1, sizeof *w);
    ND_FAIL_IF(!w, ND_ENOMEM, "%s: no memory for a shard", path);
    w->tokens.dataset = w->offsets.dataset = w->file = H5I_INVALID_HID;
    w->vocab_size = vocab_size;
    snprintf(w->tokenizer_sha256, sizeof w->tokenizer_sha256, "%s", tokenizer_sha256);
    snprintf(w->split, sizeof w->split, "%s", split);
    ND_RETURN_MADE(create_file(w, path), w, nd_shard_writer_discard, writer);
}

nd_status nd_shard_writer_add(nd_shard_writer *writer, const int32_t *ids, size_t count)
{
    ND_HDF5_LOCKED();
    column *c = &writer->tokens;
    while (count > 0) {
        const size_t capacity = c->chunk - c->held, part = count < capacity ? count : capacity;
        if (c->element == sizeof(uint16_t)) {
            uint16_t *to = (uint16_t *)c->buffer + c->held;
            for (size_t i = 0; i < part; i++)
                to[i] = (uint16_t)ids[i];
        } else {
            memcpy((uint32_t *)c->buffer + c->held, ids, part * sizeof *ids);
        }
        c->held += part;
        ids += part;
        count -= part;
        if (c->held == c->chunk)
            ND_TRY(column_flush(writer, c));
    }
    return ND_OK;
}

nd_status nd_shard_writer_end_document(nd_shard_writer *writer, int64_t bytes)
{
    ND_HDF5_LOCKED();
    writer->n_bytes += bytes;
    return add_offset(writer, nd_shard_writer_tokens(writer));
}

int64_t nd_shard_writer_tokens(const nd_shard_writer *writer)
{
    return (int64_t)(writer->tokens.written + writer->tokens.held);
}

static bool put_integer(hid_t file, const char *name, int64_t value)
{
    ND_HDF5_HANDLE space = H5Screate(H5S_SCALAR);
    ND_HDF5_HANDLE attribute =
        H5Acreate2(file, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    return H5Awrite(attribute, H5T_NATIVE_INT64, &value) >= 0;
}

static nd_status write_remainder(nd_shard_writer *w)
{
    ND_TRY(column_flush(w, &w->tokens));
    ND_TRY(column_flush(w, &w->offsets));
    if (!put_integer(w->file, "format_version", ND_SHARD_FORMAT_VERSION) ||
        !put_integer(w->file, "vocab_size", w->vocab_size) ||
        !put_integer(w->file, "n_tokens", nd_shard_writer_tokens(w)) ||
        !put_integer(w->file, "n_bytes", w->n_bytes) ||
        !nd_hdf5_put_text(w->file, "tokenizer_sha256", w->tokenizer_sha256) ||
        !nd_hdf5_put_text(w->file, "split", w->split))
        return failed(w, "its attributes");
    return ND_OK;
}

/* Fails when HDF5 cannot write its buffered data. */
static nd_status close_handles(nd_shard_writer *w)
{
    nd_status status = ND_OK;
    const hid_t datasets[] = {w->tokens.dataset, w->offsets.dataset};
    for (int i = 0; i < 2; i++) {
        if (datasets[i] >= 0 && H5Dclose(datasets[i]) < 0 && status == ND_OK)
            status = failed(w, "its last chunks");
    }
    if (w->file >= 0 && H5Fclose(w->file) < 0 && status == ND_OK)
        status = failed(w, "its last part");
    w->tokens.dataset = w->offsets.dataset = w->file = H5I_INVALID_HID;
    return status;
}

nd_status nd_shard_writer_finish(nd_shard_writer *writer)
{
    ND_HDF5_LOCKED();
    nd_status status = write_remainder(writer);
    const nd_status closed = close_handles(writer);
    ND_IF_OK(closed);
    ND_IF_OK(nd_durable_rename(writer->temporary, writer->path));
    nd_shard_writer_discard(writer);
    return status;
}

void nd_shard_writer_discard(nd_shard_writer *writer)
{
    ND_HDF5_LOCKED();
    if (!writer)
        return;
    close_handles(writer);
    if (writer->temporary[0])
        unlink(writer->temporary);
    free(writer->tokens.buffer);
    free(writer->offsets.buffer);
    free(writer);
}
