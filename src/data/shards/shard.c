#include "data/shards/shard.h"

#include "core/base/close.h"
#include "data/shards/fletcher32.h"
#include "data/shards/hdf5_errors.h"
#include "data/shards/hdf5_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    READ_TOKENS = 4096, /* copied through the stack at once */
    ATTRIBUTE_BYTES_MAX = 1024
};

/* A system error says nothing about the shard; any other means that it is damaged. */
static nd_status damaged(const char *path, const char *part)
{
    const bool system_error = nd_hdf5_is_system_error();
    return ND_FAIL(ND_EDATA, "%s: cannot read %s: %s%s", path, part, nd_hdf5_reason(),
                   system_error ? ""
                                : "; the file is damaged, not a shard, or in a format of HDF5 "
                                  "newer than 1.10");
}

static nd_status read_integer(hid_t file, const char *path, const char *name, int64_t *value)
{
    ND_FAIL_IF(H5Aexists(file, name) <= 0, ND_EDATA,
               "%s: attribute %s is missing; this HDF5 file is not a shard", path, name);
    ND_HDF5_HANDLE attribute = H5Aopen(file, name, H5P_DEFAULT);
    ND_HDF5_HANDLE space = H5Aget_space(attribute), type = H5Aget_type(attribute);
    ND_FAIL_IF(H5Sget_simple_extent_npoints(space) != 1 || H5Tget_class(type) != H5T_INTEGER,
               ND_EDATA, "%s: attribute %s is not one integer", path, name);
    return H5Aread(attribute, H5T_NATIVE_INT64, value) < 0 ? damaged(path, name) : ND_OK;
}

static nd_status copy_string(const char *path, const char *name, const char *text, char *value,
                             size_t size)
{
    ND_FAIL_IF(strlen(text) >= size, ND_EDATA,
               "%s: attribute %s is '%.80s', %zu characters; expected at most %zu", path, name,
               text, strlen(text), size - 1);
    strcpy(value, text);
    return ND_OK;
}

/* Fixed-length or variable-length strings, as C and h5py write them. */
static nd_status read_text(hid_t attribute, hid_t type, const char *path, const char *name,
                           char *value, size_t size)
{
    char fixed[ATTRIBUTE_BYTES_MAX + 1] = "", *text = NULL;
    ND_HDF5_HANDLE memory = H5Tcopy(H5T_C_S1);
    const bool variable = H5Tis_variable_str(type) > 0;
    nd_status status = ND_OK;
    H5Tset_size(memory, variable ? H5T_VARIABLE : sizeof fixed);
    H5Tset_cset(memory, H5Tget_cset(type));
    if (!variable && H5Tget_size(type) > ATTRIBUTE_BYTES_MAX)
        status = ND_FAIL(ND_EDATA, "%s: attribute %s has %zu characters; expected at most %zu",
                         path, name, H5Tget_size(type), size - 1);
    else if (H5Aread(attribute, memory, variable ? (void *)&text : fixed) < 0 ||
             (variable && !text))
        status = damaged(path, name);
    else
        status = copy_string(path, name, variable ? text : fixed, value, size);
    H5free_memory(text);
    return status;
}

static nd_status read_string(hid_t file, const char *path, const char *name, char *value,
                             size_t size)
{
    ND_FAIL_IF(H5Aexists(file, name) <= 0, ND_EDATA,
               "%s: attribute %s is missing; this HDF5 file is not a shard", path, name);
    ND_HDF5_HANDLE attribute = H5Aopen(file, name, H5P_DEFAULT);
    ND_HDF5_HANDLE type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    ND_FAIL_IF(H5Tget_class(type) != H5T_STRING || H5Sget_simple_extent_npoints(space) != 1,
               ND_EDATA, "%s: attribute %s is not one string", path, name);
    return read_text(attribute, type, path, name, value, size);
}

static nd_status read_attributes(hid_t file, nd_shard *shard)
{
    int64_t version;
    ND_TRY(read_integer(file, shard->path, "format_version", &version));
    ND_FAIL_IF(version != ND_SHARD_FORMAT_VERSION, ND_EDATA,
               "%s: format_version is %lld; this program reads version %d", shard->path,
               (long long)version, ND_SHARD_FORMAT_VERSION);
    ND_TRY(read_integer(file, shard->path, "vocab_size", &shard->vocab_size));
    ND_TRY(read_integer(file, shard->path, "n_tokens", &shard->n_tokens));
    ND_TRY(read_integer(file, shard->path, "n_bytes", &shard->n_bytes));
    ND_TRY(read_string(file, shard->path, "tokenizer_sha256", shard->tokenizer_sha256,
                       sizeof shard->tokenizer_sha256));
    ND_TRY(read_string(file, shard->path, "split", shard->split, sizeof shard->split));
    if (shard->vocab_size < 1 || shard->vocab_size > INT32_MAX || shard->n_tokens < 0 ||
        shard->n_bytes < 0)
        return ND_FAIL(ND_EDATA,
                       "%s: vocab_size %lld, n_tokens %lld, n_bytes %lld; expected a positive "
                       "vocabulary and no negative number",
                       shard->path, (long long)shard->vocab_size, (long long)shard->n_tokens,
                       (long long)shard->n_bytes);
    return ND_CHECK(strspn(shard->tokenizer_sha256, "0123456789abcdef") == ND_SHA256_HEX_SIZE - 1,
                    ND_EDATA, "%s: tokenizer_sha256 is '%s'; expected 64 hex digits in lower case",
                    shard->path, shard->tokenizer_sha256);
}

/* Checks that chunks can be read without HDF5. */
static nd_status check_layout(hid_t dataset, nd_shard *shard)
{
    ND_HDF5_HANDLE properties = H5Dget_create_plist(dataset);
    hsize_t chunk = 0;
    unsigned flags = 0;
    size_t values = 0;
    ND_FAIL_IF(H5Pget_layout(properties) != H5D_CHUNKED ||
                   H5Pget_chunk(properties, 1, &chunk) != 1 || chunk == 0 || chunk > 1u << 28,
               ND_EDATA, "%s: /tokens is not chunked; expected chunks with fletcher32",
               shard->path);
    ND_FAIL_IF(
        H5Pget_nfilters(properties) != 1 || H5Pget_filter2(properties, 0, &flags, &values, NULL, 0,
                                                           NULL, NULL) != H5Z_FILTER_FLETCHER32,
        ND_EDATA, "%s: /tokens has %d filters; expected fletcher32 alone, without compression",
        shard->path, H5Pget_nfilters(properties));
    shard->chunk_tokens = (int64_t)chunk;
    return ND_OK;
}

static nd_status locate_chunks(hid_t dataset, nd_shard *shard)
{
    struct stat info;
    shard->fd = open(shard->path, O_RDONLY | O_CLOEXEC);
    ND_FAIL_IF(shard->fd < 0 || fstat(shard->fd, &info) != 0, ND_EDATA,
               "%s: cannot open this file: %s", shard->path, strerror(errno));
    shard->inode = info.st_ino;
    shard->file_bytes = info.st_size;
    /* Tokens are stored uncompressed, so this bounds n_tokens: nothing below overflows. */
    ND_FAIL_IF(shard->n_tokens > (int64_t)info.st_size / shard->token_bytes, ND_EDATA,
               "%s: n_tokens is %lld, more than fit the file's %lld bytes", shard->path,
               (long long)shard->n_tokens, (long long)info.st_size);
    shard->chunk_count = (shard->n_tokens + shard->chunk_tokens - 1) / shard->chunk_tokens;
    shard->chunk_offsets = calloc((size_t)shard->chunk_count + 1, sizeof *shard->chunk_offsets);
    shard->verified = calloc((size_t)shard->chunk_count + 1, sizeof *shard->verified);
    ND_FAIL_IF(!shard->chunk_offsets || !shard->verified, ND_ENOMEM,
               "%s: no memory for its %lld chunks", shard->path, (long long)shard->chunk_count);
    const hsize_t expected =
        (hsize_t)(shard->chunk_tokens * shard->token_bytes) + ND_FLETCHER32_BYTES;
    for (int64_t i = 0; i < shard->chunk_count; i++) {
        const hsize_t first = (hsize_t)(i * shard->chunk_tokens);
        unsigned skipped = 0;
        haddr_t offset = HADDR_UNDEF;
        hsize_t bytes = 0;
        if (H5Dget_chunk_info_by_coord(dataset, &first, &skipped, &offset, &bytes) < 0)
            return damaged(shard->path, "the index of /tokens");
        if (offset == HADDR_UNDEF || bytes != expected || skipped != 0 ||
            bytes > (hsize_t)info.st_size || offset > (hsize_t)info.st_size - bytes)
            return ND_FAIL(ND_EDATA,
                           "%s: chunk %lld of /tokens has %llu bytes at offset %lld; expected %llu "
                           "checksummed bytes inside the file's %lld",
                           shard->path, (long long)i, (unsigned long long)bytes, (long long)offset,
                           (unsigned long long)expected, (long long)info.st_size);
        shard->chunk_offsets[i] = offset;
    }
    return ND_OK;
}

static nd_status read_extent(hid_t dataset, const char *path, const char *name, hsize_t *extent)
{
    ND_HDF5_HANDLE space = H5Dget_space(dataset);
    const int rank = H5Sget_simple_extent_ndims(space);
    if (rank == 1)
        H5Sget_simple_extent_dims(space, extent, NULL);
    return ND_CHECK(rank == 1, ND_EDATA, "%s: /%s has %d dimensions; expected 1", path, name, rank);
}

static nd_status open_tokens(hid_t dataset, nd_shard *shard)
{
    hsize_t extent = 0;
    ND_TRY(read_extent(dataset, shard->path, ND_SHARD_TOKENS, &extent));
    ND_FAIL_IF(extent != (hsize_t)shard->n_tokens, ND_EDATA,
               "%s: /tokens has %llu tokens; attribute n_tokens says %lld", shard->path,
               (unsigned long long)extent, (long long)shard->n_tokens);
    ND_HDF5_HANDLE type = H5Dget_type(dataset);
    shard->token_bytes = H5Tequal(type, H5T_STD_U16LE) > 0   ? 2
                         : H5Tequal(type, H5T_STD_U32LE) > 0 ? 4
                                                             : 0;
    ND_FAIL_IF(shard->token_bytes == 0, ND_EDATA,
               "%s: /tokens is not little-endian uint16 or uint32", shard->path);
    ND_TRY(check_layout(dataset, shard));
    return locate_chunks(dataset, shard);
}

static nd_status read_offset(hid_t dataset, const char *path, hsize_t index, uint64_t *value)
{
    const hsize_t one = 1;
    ND_HDF5_HANDLE memory = H5Screate_simple(1, &one, NULL), file = H5Dget_space(dataset);
    const bool ok = H5Sselect_hyperslab(file, H5S_SELECT_SET, &index, NULL, &one, NULL) >= 0 &&
                    H5Dread(dataset, H5T_NATIVE_UINT64, memory, file, H5P_DEFAULT, value) >= 0;
    return ok ? ND_OK : damaged(path, "/doc_offsets");
}

static nd_status check_documents(hid_t dataset, nd_shard *shard)
{
    hsize_t extent = 0;
    uint64_t first = 0, last = 0;
    ND_TRY(read_extent(dataset, shard->path, ND_SHARD_DOC_OFFSETS, &extent));
    if (extent > 0) {
        ND_TRY(read_offset(dataset, shard->path, 0, &first));
        ND_TRY(read_offset(dataset, shard->path, extent - 1, &last));
    }
    ND_FAIL_IF(extent == 0 || extent - 1 > (hsize_t)shard->n_tokens || first != 0 ||
                   last != (uint64_t)shard->n_tokens,
               ND_EDATA,
               "%s: /doc_offsets holds %llu numbers from %llu to %llu; expected ascending ones "
               "from 0 to %lld, the number of tokens",
               shard->path, (unsigned long long)extent, (unsigned long long)first,
               (unsigned long long)last, (long long)shard->n_tokens);
    shard->n_documents = (int64_t)extent - 1;
    return ND_OK;
}

static nd_status with_dataset(hid_t file, nd_shard *shard, const char *name,
                              nd_status (*use)(hid_t, nd_shard *))
{
    ND_FAIL_IF(H5Lexists(file, name, H5P_DEFAULT) <= 0, ND_EDATA,
               "%s: dataset /%s is missing; this HDF5 file is not a shard", shard->path, name);
    ND_HDF5_HANDLE dataset = H5Dopen2(file, name, H5P_DEFAULT);
    return dataset < 0 ? damaged(shard->path, name) : use(dataset, shard);
}

/* Not H5Fis_hdf5, which locks the file and does not distinguish failures from other formats. */
static bool has_signature(const char *path)
{
    static const char signature[] = "\x89HDF\r\n\x1a\n";
    char first[8] = "";
    ND_CLEANUP(nd_close_file) FILE *file = fopen(path, "rbe");
    return file && fread(first, 1, sizeof first, file) == sizeof first &&
           memcmp(first, signature, sizeof first) == 0;
}

/* The caller closes the file, also when it failed. */
static nd_status open_file(const char *path, hid_t *file)
{
    struct stat info;
    ND_FAIL_IF(access(path, R_OK) != 0 || stat(path, &info) != 0, ND_EDATA,
               "%s: cannot open this file: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode)) /* opening a pipe would block */
        return ND_FAIL(ND_EDATA, "%s: not a regular file; expected a shard", path);
    *file = H5Fopen(path, H5F_ACC_RDONLY, nd_hdf5_access(false));
    if (*file < 0 && (nd_hdf5_is_system_error() || has_signature(path)))
        return damaged(path, "this HDF5 file");
    ND_FAIL_IF(*file < 0, ND_EDATA, "%s: not an HDF5 file; expected a shard", path);
    ND_HDF5_HANDLE properties = H5Fget_create_plist(*file);
    hsize_t userblock = 0;
    H5Pget_userblock(properties, &userblock);
    return ND_CHECK(userblock == 0, ND_EDATA, "%s: has a user block of %llu bytes; expected none",
                    path, (unsigned long long)userblock);
}

nd_status nd_shard_open(const char *path, nd_shard *shard)
{
    ND_HDF5_LOCKED();
    ND_CLEANUP(nd_hdf5_release) hid_t file = H5I_INVALID_HID;
    *shard = (nd_shard){.fd = -1};
    nd_hdf5_start();
    ND_TRY(open_file(path, &file));
    shard->path = strdup(path);
    nd_status status = ND_CHECK(shard->path, ND_ENOMEM, "%s: no memory for its name", path);
    ND_IF_OK(read_attributes(file, shard));
    ND_IF_OK(with_dataset(file, shard, ND_SHARD_TOKENS, open_tokens));
    ND_IF_OK(with_dataset(file, shard, ND_SHARD_DOC_OFFSETS, check_documents));
    if (status != ND_OK)
        nd_shard_close(shard);
    return status;
}

void nd_shard_close(nd_shard *shard)
{
    if (shard->fd >= 0)
        close(shard->fd);
    free(shard->path);
    free(shard->chunk_offsets);
    free((void *)shard->verified);
    *shard = (nd_shard){.fd = -1};
}

static nd_status read_bytes(const nd_shard *shard, int fd, void *buffer, size_t bytes,
                            uint64_t offset)
{
    size_t done = 0;
    while (done < bytes) {
        const ssize_t got = pread(fd, (char *)buffer + done, bytes - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        ND_FAIL_IF(got <= 0, ND_EDATA, "%s: cannot read %zu bytes at offset %llu: %s", shard->path,
                   bytes, (unsigned long long)offset,
                   got < 0 ? strerror(errno) : "the file has become shorter");
        done += (size_t)got;
    }
    return ND_OK;
}

static nd_status verify_chunk(const nd_shard *shard, int fd, int64_t chunk)
{
    const size_t bytes = (size_t)(shard->chunk_tokens * shard->token_bytes);
    ND_AUTOFREE uint8_t *data = malloc(bytes + ND_FLETCHER32_BYTES);
    ND_FAIL_IF(!data, ND_ENOMEM, "%s: no memory for a chunk of %zu bytes", shard->path, bytes);
    ND_TRY(read_bytes(shard, fd, data, bytes + ND_FLETCHER32_BYTES, shard->chunk_offsets[chunk]));
    const uint8_t *tail = data + bytes;
    const uint32_t stored = (uint32_t)tail[0] | (uint32_t)tail[1] << 8 | (uint32_t)tail[2] << 16 |
                            (uint32_t)tail[3] << 24;
    const uint32_t found = nd_fletcher32(data, bytes);
    ND_FAIL_IF(stored != found, ND_EDATA,
               "%s: chunk %lld (tokens %lld and on) is damaged: its checksum is %08x; expected "
               "%08x",
               shard->path, (long long)chunk, (long long)(chunk * shard->chunk_tokens), found,
               stored);
    atomic_store_explicit(&shard->verified[chunk], 1, memory_order_release);
    return ND_OK;
}

static nd_status fail_token(const nd_shard *shard, int64_t first, const int32_t *tokens)
{
    int64_t at = 0;
    while ((uint32_t)tokens[at] < (uint32_t)shard->vocab_size)
        at++;
    return ND_FAIL(ND_EDATA, "%s: token %lld is %u; expected a value below vocab_size %lld",
                   shard->path, (long long)(first + at), (uint32_t)tokens[at],
                   (long long)shard->vocab_size);
}

/* Reads `count` tokens of one chunk. */
static nd_status read_piece(const nd_shard *shard, int fd, int64_t first, int64_t count,
                            int32_t *tokens)
{
    const int64_t chunk = first / shard->chunk_tokens, inside = first % shard->chunk_tokens;
    const uint64_t offset = shard->chunk_offsets[chunk] + (uint64_t)(inside * shard->token_bytes);
    uint32_t largest = 0;
    if (shard->token_bytes == 2) {
        uint16_t narrow[READ_TOKENS];
        ND_TRY(read_bytes(shard, fd, narrow, (size_t)count * sizeof *narrow, offset));
        for (int64_t i = 0; i < count; i++) {
            largest = narrow[i] > largest ? narrow[i] : largest;
            tokens[i] = narrow[i];
        }
    } else {
        ND_TRY(read_bytes(shard, fd, tokens, (size_t)count * sizeof *tokens, offset));
        for (int64_t i = 0; i < count; i++)
            largest = (uint32_t)tokens[i] > largest ? (uint32_t)tokens[i] : largest;
    }
    return (int64_t)largest < shard->vocab_size ? ND_OK : fail_token(shard, first, tokens);
}

nd_status nd_shard_read_from(const nd_shard *shard, int fd, int64_t first, int64_t count,
                             int32_t *tokens)
{
    ND_FAIL_IF(first < 0 || count < 0 || first > shard->n_tokens - count, ND_EINTERNAL,
               "%s: tokens %lld to %lld asked for; it has %lld", shard->path, (long long)first,
               (long long)(first + count), (long long)shard->n_tokens);
    while (count > 0) {
        const int64_t chunk = first / shard->chunk_tokens;
        const int64_t left = (chunk + 1) * shard->chunk_tokens - first;
        int64_t piece = count < left ? count : left;
        piece = piece < READ_TOKENS ? piece : READ_TOKENS;
        if (!atomic_load_explicit(&shard->verified[chunk], memory_order_acquire))
            ND_TRY(verify_chunk(shard, fd, chunk));
        ND_TRY(read_piece(shard, fd, first, piece, tokens));
        first += piece;
        tokens += piece;
        count -= piece;
    }
    return ND_OK;
}

nd_status nd_shard_read(const nd_shard *shard, int64_t first, int64_t count, int32_t *tokens)
{
    return nd_shard_read_from(shard, shard->fd, first, count, tokens);
}

void nd_shard_close_file(nd_shard *shard)
{
    close(shard->fd);
    shard->fd = -1;
}

nd_status nd_shard_reopen_file(const nd_shard *shard, int *fd)
{
    struct stat info;
    *fd = open(shard->path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0 && (errno == EMFILE || errno == ENFILE))
        return ND_OK;
    if (*fd >= 0 && fstat(*fd, &info) == 0 && info.st_ino == shard->inode &&
        info.st_size == shard->file_bytes)
        return ND_OK;
    const nd_status status = *fd < 0 ? ND_FAIL(ND_EDATA, "%s: cannot open this file again: %s",
                                               shard->path, strerror(errno))
                                     : ND_FAIL(ND_EDATA,
                                               "%s: replaced since it was first opened; data must "
                                               "stay as it is while it is used",
                                               shard->path);
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    return status;
}
