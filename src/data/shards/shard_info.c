#include "data/shards/shard_info.h"

#include "data/shards/hdf5_errors.h"
#include "data/shards/hdf5_lock.h"
#include "data/shards/shard.h"

#include <hdf5.h>
#include <stdlib.h>

enum { READ_TOKENS = ND_SHARD_CHUNK_TOKENS, READ_OFFSETS = 4096 };

static void print_header(const nd_shard *shard, FILE *out)
{
    fprintf(out,
            "shard              %s\n"
            "format_version     %d\n"
            "split              %s\n"
            "vocab_size         %lld\n"
            "tokenizer_sha256   %s\n"
            "tokens             %lld (uint%d, %lld chunks of %lld)\n"
            "documents          %lld\n"
            "bytes of text      %lld (%.3f a token)\n",
            shard->path, ND_SHARD_FORMAT_VERSION, shard->split, (long long)shard->vocab_size,
            shard->tokenizer_sha256, (long long)shard->n_tokens, 8 * shard->token_bytes,
            (long long)shard->chunk_count, (long long)shard->chunk_tokens,
            (long long)shard->n_documents, (long long)shard->n_bytes,
            shard->n_tokens > 0 ? (double)shard->n_bytes / (double)shard->n_tokens : 0.0);
}

static nd_status verify_tokens(const nd_shard *shard)
{
    ND_AUTOFREE int32_t *tokens = malloc(READ_TOKENS * sizeof *tokens);
    ND_FAIL_IF(!tokens, ND_ENOMEM, "%s: no memory to verify with", shard->path);
    for (int64_t at = 0; at < shard->n_tokens; at += READ_TOKENS) {
        const int64_t left = shard->n_tokens - at;
        ND_TRY(nd_shard_read(shard, at, left < READ_TOKENS ? left : READ_TOKENS, tokens));
    }
    return ND_OK;
}

/* Checks that `count` offsets ascend from *last, which becomes the last of them. */
static nd_status check_offsets(const nd_shard *shard, const uint64_t *offsets, int64_t first,
                               int64_t count, uint64_t *last)
{
    for (int64_t i = 0; i < count; i++) {
        ND_FAIL_IF(
            first + i > 0 && offsets[i] <= *last, ND_EDATA,
            "%s: /doc_offsets[%lld] is %llu and the next is %llu; expected ascending numbers",
            shard->path, (long long)(first + i - 1), (unsigned long long)*last,
            (unsigned long long)offsets[i]);
        *last = offsets[i];
    }
    return ND_OK;
}

/* Reads parts of fixed size, because the reopened file may be another one with other sizes. */
static nd_status verify_offsets(const nd_shard *shard, hid_t dataset)
{
    uint64_t offsets[READ_OFFSETS], last = 0;
    ND_HDF5_HANDLE file = H5Dget_space(dataset);
    for (int64_t at = 0; at <= shard->n_documents; at += READ_OFFSETS) {
        const int64_t left = shard->n_documents + 1 - at;
        const hsize_t first = (hsize_t)at,
                      count = (hsize_t)(left < READ_OFFSETS ? left : READ_OFFSETS);
        ND_HDF5_HANDLE memory = H5Screate_simple(1, &count, NULL);
        ND_FAIL_IF(H5Sselect_hyperslab(file, H5S_SELECT_SET, &first, NULL, &count, NULL) < 0 ||
                       H5Dread(dataset, H5T_NATIVE_UINT64, memory, file, H5P_DEFAULT, offsets) < 0,
                   ND_EDATA, "%s: cannot read /doc_offsets: %s", shard->path, nd_hdf5_reason());
        ND_TRY(check_offsets(shard, offsets, at, (int64_t)count, &last));
    }
    return ND_OK;
}

static nd_status verify_documents(const nd_shard *shard)
{
    ND_HDF5_LOCKED();
    nd_hdf5_start();
    ND_HDF5_HANDLE file = H5Fopen(shard->path, H5F_ACC_RDONLY, nd_hdf5_access(false));
    ND_FAIL_IF(file < 0, ND_EDATA, "%s: cannot open this file again: %s", shard->path,
               nd_hdf5_reason());
    ND_HDF5_HANDLE dataset = H5Dopen2(file, ND_SHARD_DOC_OFFSETS, H5P_DEFAULT);
    ND_FAIL_IF(dataset < 0, ND_EDATA, "%s: cannot open /doc_offsets: %s", shard->path,
               nd_hdf5_reason());
    return verify_offsets(shard, dataset);
}

static nd_status verify(const nd_shard *shard)
{
    ND_TRY(verify_tokens(shard));
    return verify_documents(shard);
}

nd_status nd_shard_verify(const char *path)
{
    ND_CLEANUP(nd_shard_close) nd_shard shard = {.fd = -1};
    ND_TRY(nd_shard_open(path, &shard));
    return verify(&shard);
}

nd_status nd_shard_info_print(const char *path, bool check, FILE *out)
{
    ND_CLEANUP(nd_shard_close) nd_shard shard = {.fd = -1};
    ND_TRY(nd_shard_open(path, &shard));
    print_header(&shard, out);
    if (!check)
        return ND_OK;
    ND_TRY(verify(&shard));
    fprintf(out, "verified           every checksum, token and document offset is good\n");
    return ND_OK;
}
