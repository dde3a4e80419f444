#include "data/shard_info.h"

#include "data/hdf5_errors.h"
#include "data/shard.h"

#include <hdf5.h>
#include <stdlib.h>

enum { PART_TOKENS = ND_SHARD_CHUNK_TOKENS };

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
    int32_t *tokens = malloc(PART_TOKENS * sizeof *tokens);
    if (!tokens)
        return ND_FAIL(ND_ENOMEM, "%s: no memory to verify with", shard->path);
    nd_status status = ND_OK;
    for (int64_t at = 0; status == ND_OK && at < shard->n_tokens; at += PART_TOKENS) {
        const int64_t left = shard->n_tokens - at;
        status = nd_shard_read(shard, at, left < PART_TOKENS ? left : PART_TOKENS, tokens);
    }
    free(tokens);
    return status;
}

static nd_status check_offsets(const nd_shard *shard, const uint64_t *offsets)
{
    for (int64_t i = 0; i < shard->n_documents; i++) {
        if (offsets[i] >= offsets[i + 1])
            return ND_FAIL(ND_EDATA,
                           "%s: /doc_offsets[%lld] is %llu and the next is %llu; expected numbers "
                           "that grow",
                           shard->path, (long long)i, (unsigned long long)offsets[i],
                           (unsigned long long)offsets[i + 1]);
    }
    return ND_OK;
}

static nd_status verify_documents(const nd_shard *shard)
{
    nd_status status = ND_OK;
    nd_hdf5_start();
    uint64_t *offsets = malloc((size_t)(shard->n_documents + 1) * sizeof *offsets);
    if (!offsets)
        return ND_FAIL(ND_ENOMEM, "%s: no memory for %lld document offsets", shard->path,
                       (long long)shard->n_documents);
    const hid_t file = H5Fopen(shard->path, H5F_ACC_RDONLY, H5P_DEFAULT);
    const hid_t dataset = H5Dopen2(file, ND_SHARD_DOC_OFFSETS, H5P_DEFAULT);
    if (H5Dread(dataset, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, offsets) < 0)
        status =
            ND_FAIL(ND_EDATA, "%s: cannot read /doc_offsets: %s", shard->path, nd_hdf5_reason());
    else
        status = check_offsets(shard, offsets);
    H5Dclose(dataset);
    H5Fclose(file);
    free(offsets);
    return status;
}

nd_status nd_shard_info_print(const char *path, bool verify, FILE *out)
{
    nd_shard shard;
    nd_status status;
    ND_TRY(nd_shard_open(path, &shard));
    print_header(&shard, out);
    if (verify) {
        ND_TRY_GOTO(verify_tokens(&shard), done);
        ND_TRY_GOTO(verify_documents(&shard), done);
        fprintf(out, "verified           every checksum, token and document offset is good\n");
    }
    status = ND_OK;
done:
    nd_shard_close(&shard);
    return status;
}
