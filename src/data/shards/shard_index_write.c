#include "core/base/durable_file.h"
#include "core/base/grow.h"
#include "data/shards/shard_index.h"
#include "data/text/json.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static nd_status append(nd_shard_index *index, const nd_indexed_shard *shard)
{
    nd_indexed_shard *larger =
        nd_grown(index->shards, &index->capacity, index->count + 1, sizeof *larger);
    ND_FAIL_IF(!larger, ND_ENOMEM, "no memory for an index of %zu shards", index->count + 1);
    index->shards = larger;
    index->shards[index->count++] = *shard;
    return ND_OK;
}

static nd_status check_fits(const nd_shard_index *index, const nd_shard *shard,
                            const nd_indexed_shard *entry)
{
    ND_FAIL_IF(strcmp(shard->tokenizer_sha256, index->tokenizer_sha256) != 0, ND_EDATA,
               "%s: packed with the tokenizer of SHA-256 %s; expected %s, the tokenizer of the "
               "other shards here",
               shard->path, shard->tokenizer_sha256, index->tokenizer_sha256);
    ND_FAIL_IF(shard->vocab_size != index->vocab_size, ND_EDATA,
               "%s: packed for a vocabulary of %lld; the other shards here for %lld", shard->path,
               (long long)shard->vocab_size, (long long)index->vocab_size);
    return ND_CHECK(nd_shard_index_names(entry), ND_EDATA,
                    "%s: expected a name in UTF-8, without control characters, that begins with "
                    "the file's attribute split, '%s'",
                    shard->path, shard->split);
}

nd_status nd_shard_index_add(nd_shard_index *index, const char *path)
{
    ND_CLEANUP(nd_shard_close) nd_shard shard = {.fd = -1};
    nd_indexed_shard entry;
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    ND_FAIL_IF(strlen(name) >= sizeof entry.name, ND_EIO, "%s: this name is too long", path);
    ND_TRY(nd_file_digest(path, &entry.bytes, entry.sha256));
    ND_TRY(nd_shard_open(path, &shard));
    if (index->count == 0) {
        index->vocab_size = shard.vocab_size;
        memcpy(index->tokenizer_sha256, shard.tokenizer_sha256, sizeof shard.tokenizer_sha256);
    }
    snprintf(entry.name, sizeof entry.name, "%s", name);
    memcpy(entry.split, shard.split, sizeof shard.split);
    entry.n_tokens = shard.n_tokens;
    entry.n_documents = shard.n_documents;
    ND_TRY(check_fits(index, &shard, &entry));
    return append(index, &entry);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const nd_indexed_shard *)a)->name, ((const nd_indexed_shard *)b)->name);
}

nd_status nd_shard_index_write(nd_shard_index *index, const char *path)
{
    qsort(index->shards, index->count, sizeof *index->shards, by_name);
    json_t *list = json_array();
    for (size_t i = 0; i < index->count; i++) {
        const nd_indexed_shard *s = &index->shards[i];
        json_array_append_new(list, json_pack("{s:s,s:s,s:I,s:I,s:I,s:s}", "name", s->name, "split",
                                              s->split, "n_tokens", (json_int_t)s->n_tokens,
                                              "n_documents", (json_int_t)s->n_documents, "bytes",
                                              (json_int_t)s->bytes, "sha256", s->sha256));
    }
    json_auto_t *root = json_pack("{s:i,s:I,s:s,s:o}", "format_version", ND_SHARD_INDEX_VERSION,
                                  "vocab_size", (json_int_t)index->vocab_size, "tokenizer_sha256",
                                  index->tokenizer_sha256, "shards", list);
    ND_AUTOFREE char *text =
        root && json_array_size(list) == index->count ? nd_json_text(root, JSON_INDENT(1)) : NULL;
    ND_FAIL_IF(!text, ND_ENOMEM, "%s: no memory for its text", path);
    return nd_durable_write(path, text, strlen(text));
}
