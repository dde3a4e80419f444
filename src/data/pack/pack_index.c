/* Writes the index of existing shards. */
#include "core/base/durable_file.h"
#include "data/data_directory.h"
#include "data/pack/pack.h"
#include "data/pack/pack_present.h"
#include "data/pack/pack_staging.h"
#include "data/shards/shard_info.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct indexing {
    const char *out;
    nd_shard_index *index;
} indexing;

static nd_status add_shard(void *context, const char *name)
{
    indexing *x = context;
    char path[PATH_MAX];
    ND_FAIL_IF(nd_shard_name_matches(name, ND_TEMPORARY_SUFFIX), ND_EDATA,
               "%s/%s: left by an interrupted pack, so shards may be missing here; pack again, or "
               "remove this file if you know that they are all here",
               x->out, name);
    if (!nd_shard_name_matches(name, ""))
        return ND_OK;
    ND_TRY(nd_data_path(x->out, "", name, path));
    ND_TRY(nd_shard_verify(path));
    return nd_shard_index_add(x->index, path);
}

/* A tokenizer.model beside the shards must be the one they were packed with. */
static nd_status check_model(const indexing *x)
{
    char path[PATH_MAX], hex[ND_SHA256_HEX_SIZE];
    int64_t bytes;
    ND_TRY(nd_data_path(x->out, "", "tokenizer.model", path));
    if (access(path, F_OK) != 0)
        return ND_OK;
    ND_TRY(nd_file_digest(path, &bytes, hex));
    return ND_CHECK(strcmp(hex, x->index->tokenizer_sha256) == 0, ND_EDATA,
                    "%s: damaged, or of other data: its SHA-256 is %.12s..., that of the shards' "
                    "tokenizer is %.12s...",
                    path, hex, x->index->tokenizer_sha256);
}

static nd_status write_index(const char *out, size_t *shards)
{
    ND_CLEANUP(nd_shard_index_free) nd_shard_index index = {0};
    ND_CLEANUP(nd_pack_present_close) nd_pack_present present = {0};
    indexing x = {out, &index};
    char path[PATH_MAX];
    ND_TRY(nd_pack_present_open(out, &present));
    ND_TRY(nd_data_path(out, "", ND_SHARD_INDEX_NAME, path));
    ND_TRY(nd_data_directory_list(out, add_shard, &x));
    ND_FAIL_IF(index.count == 0, ND_EDATA,
               "%s: no shard here (files named train_*.h5 and val_*.h5)", out);
    ND_TRY(check_model(&x));
    *shards = index.count;
    return nd_shard_index_write(&index, path);
}

nd_status nd_pack_index(const char *out, size_t *shards)
{
    ND_CLEANUP(nd_pack_staging_close) nd_pack_staging staging = {.lock = -1};
    struct stat info;
    ND_FAIL_IF(stat(out, &info) != 0, ND_EDATA, "%s: cannot read this directory of shards: %s", out,
               strerror(errno));
    ND_TRY(nd_pack_staging_open(out, &staging));
    return write_index(out, shards);
}
