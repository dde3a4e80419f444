#include "data/pack/pack_present.h"

#include "core/base/durable_file.h"
#include "data/data_directory.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

nd_status nd_pack_present_open(const char *out, nd_pack_present *present)
{
    char path[PATH_MAX];
    bool exists;
    ND_AUTOFREE void *text = NULL;
    size_t size;
    *present = (nd_pack_present){.out = out};
    ND_TRY(nd_data_path(out, "", ND_SHARD_INDEX_NAME, path));
    ND_TRY(nd_data_exists(path, &exists));
    if (!exists)
        return ND_OK;
    ND_TRY(nd_read_whole_file(path, ND_EDATA, &text, &size));
    const nd_status parsed = nd_shard_index_parse(text, size, path, &present->index);
    if (parsed == ND_OK)
        return ND_OK;
    ND_TRY(nd_error_tolerate(parsed));
    nd_shard_index_free(&present->index);
    const bool damaged = size == 0 || strstr(text, "\"tokenizer_sha256\"");
    return ND_CHECK(damaged, ND_ECONFIG,
                    "%s: the index of a data set goes here, and this file is not one; move it "
                    "elsewhere, or give another directory",
                    path);
}

void nd_pack_present_close(nd_pack_present *present)
{
    nd_shard_index_free(&present->index);
}

nd_status nd_pack_present_may_go(const nd_pack_present *p, const char *name)
{
    char path[PATH_MAX], hex[ND_SHA256_HEX_SIZE];
    bool exists, listed = false;
    int64_t bytes;
    nd_shard shard;
    ND_TRY(nd_data_path(p->out, "", name, path));
    ND_TRY(nd_data_exists(path, &exists));
    if (!exists)
        return ND_OK;
    const nd_status opened = nd_shard_open(path, &shard);
    if (opened == ND_OK) {
        nd_shard_close(&shard);
        return ND_OK;
    }
    ND_TRY(nd_error_tolerate(opened));
    for (size_t i = 0; i < p->index.count; i++)
        listed |= strcmp(p->index.shards[i].name, name) == 0;
    ND_TRY(nd_file_digest(path, &bytes, hex)); /* damaged is not the same as unreadable */
    return ND_CHECK(listed, ND_ECONFIG,
                    "%s: a shard goes here, and this file is neither a complete one nor listed in "
                    "an index; move it elsewhere, or give another directory",
                    path);
}
