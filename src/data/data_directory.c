#include "data/data_directory.h"

#include "core/base/durable_file.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

nd_status nd_data_path(const char *path, const char *part, const char *name, char *result)
{
    const int length = snprintf(result, PATH_MAX, "%s%s%s/%s", path, *part ? "/" : "", part, name);
    return ND_CHECK(length < PATH_MAX - 8, ND_EIO, "%.200s...: this path is too long", path);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

nd_status nd_data_directory_list(const char *path,
                                 nd_status (*visit)(void *context, const char *name), void *context)
{
    struct dirent **names = NULL;
    const int count = scandir(path, &names, NULL, by_name);
    ND_FAIL_IF(count < 0, ND_EDATA, "%s: cannot read this directory of shards: %s", path,
               strerror(errno));
    nd_status status = ND_OK;
    for (int i = 0; i < count; i++) {
        ND_IF_OK(visit(context, names[i]->d_name));
        free(names[i]);
    }
    free(names);
    return status;
}

nd_status nd_data_exists(const char *path, bool *exists)
{
    struct stat info;
    *exists = stat(path, &info) == 0;
    ND_FAIL_IF(!*exists && errno != ENOENT && errno != ENOTDIR, ND_EDATA,
               "%s: cannot tell whether this file exists: %s", path, strerror(errno));
    return ND_OK;
}

/* What a directory without an index contains. */
typedef struct contents {
    char shard[ND_SHARD_NAME_SIZE], unfinished[ND_SHARD_NAME_SIZE];
    int shards;
    bool staging;
} contents;

static nd_status note_file(void *context, const char *name)
{
    contents *t = context;
    if (nd_shard_name_matches(name, "")) {
        if (t->shards++ == 0 || strcmp(name, t->shard) < 0)
            snprintf(t->shard, sizeof t->shard, "%s", name);
    } else if (nd_shard_name_matches(name, ND_TEMPORARY_SUFFIX)) {
        snprintf(t->unfinished, sizeof t->unfinished, "%s", name);
    }
    t->staging |= strcmp(name, ND_PACK_STAGING) == 0;
    return ND_OK;
}

static nd_status fail_without_index(const char *path)
{
    contents t = {.shards = 0};
    ND_TRY(nd_data_directory_list(path, note_file, &t));
    ND_FAIL_IF(
        t.unfinished[0] || (t.staging && t.shards == 0), ND_EDATA,
        "%s: not a complete data set: a pack is still running here or was interrupted (it left "
        "%s); run it again%s",
        path, t.unfinished[0] ? t.unfinished : ND_PACK_STAGING,
        t.shards ? " with --overwrite" : "");
    ND_FAIL_IF(t.shards > 0, ND_EDATA,
               "%s/%s: %d shard%s here, but no " ND_SHARD_INDEX_NAME
               ", which pack writes last: packed by an older version or another program, or not "
               "copied completely. When all shards are there, make the index with `nanochat_dist "
               "pack --index %s`",
               path, t.shard, t.shards, t.shards == 1 ? "" : "s", path);
    return ND_FAIL(ND_EDATA,
                   "%s: no shard of split 'train' or 'val' here (files named train_*.h5 and "
                   "val_*.h5); make some with `nanochat_dist pack`",
                   path);
}

static nd_status read_index(nd_data_directory *d)
{
    char path[PATH_MAX];
    ND_AUTOFREE void *text = NULL;
    size_t size;
    bool exists;
    ND_TRY(nd_data_path(d->path, ND_PACK_STAGING, ND_SHARD_INDEX_NAME, path));
    ND_TRY(nd_data_exists(path, &d->staged));
    if (!d->staged) {
        ND_TRY(nd_data_path(d->path, "", ND_SHARD_INDEX_NAME, path));
        ND_TRY(nd_data_exists(path, &exists));
        if (!exists)
            return fail_without_index(d->path);
    }
    ND_TRY(nd_read_whole_file(path, ND_EDATA, &text, &size));
    return nd_shard_index_parse(text, size, path, &d->index);
}

/* The path of a shard, which may still be in the staging directory. */
static nd_status shard_path(const nd_data_directory *d, size_t number, char path[PATH_MAX])
{
    const char *name = d->index.shards[number].name;
    bool exists = false;
    ND_TRY(nd_data_path(d->path, ND_PACK_STAGING, name, path));
    if (d->staged)
        ND_TRY(nd_data_exists(path, &exists));
    return exists ? ND_OK : nd_data_path(d->path, "", name, path);
}

static nd_status check_file(const nd_data_directory *d, size_t number)
{
    const nd_indexed_shard *shard = &d->index.shards[number];
    char path[PATH_MAX];
    struct stat info;
    ND_TRY(shard_path(d, number, path));
    ND_FAIL_IF(stat(path, &info) != 0, ND_EDATA,
               "%s: %s; " ND_SHARD_INDEX_NAME
               " lists this shard of %lld bytes; copy it here again, or pack again",
               path, errno == ENOENT ? "missing" : strerror(errno), (long long)shard->bytes);
    return ND_CHECK(info.st_size == shard->bytes, ND_EDATA,
                    "%s: %lld bytes; expected %lld by " ND_SHARD_INDEX_NAME
                    ": cut short, or of another data set; copy it here again, or pack again",
                    path, (long long)info.st_size, (long long)shard->bytes);
}

static int compare_name(const void *name, const void *shard)
{
    return strcmp(name, ((const nd_indexed_shard *)shard)->name);
}

static nd_status check_unlisted(void *context, const char *name)
{
    const nd_data_directory *d = context;
    if (!nd_shard_name_matches(name, "") ||
        bsearch(name, d->index.shards, d->index.count, sizeof *d->index.shards, compare_name))
        return ND_OK;
    return ND_FAIL(ND_EDATA,
                   "%s/%s: a shard that " ND_SHARD_INDEX_NAME " does not list; move it elsewhere, "
                   "or index it with `nanochat_dist pack --index %s`",
                   d->path, name, d->path);
}

nd_status nd_data_directory_open(const char *path, nd_data_directory *directory)
{
    *directory = (nd_data_directory){.path = strdup(path)};
    ND_FAIL_IF(!directory->path, ND_ENOMEM, "%s: no memory for its name", path);
    nd_status status = read_index(directory);
    for (size_t i = 0; status == ND_OK && i < directory->index.count; i++)
        status = check_file(directory, i);
    if (!directory->staged) /* otherwise old shards may still be there */
        ND_IF_OK(nd_data_directory_list(path, check_unlisted, directory));
    if (status != ND_OK)
        nd_data_directory_close(directory);
    return status;
}

void nd_data_directory_close(nd_data_directory *directory)
{
    nd_shard_index_free(&directory->index);
    free(directory->path);
    *directory = (nd_data_directory){0};
}

nd_status nd_data_directory_open_shard(const nd_data_directory *directory, size_t number,
                                       nd_shard *shard)
{
    const nd_shard_index *index = &directory->index;
    const nd_indexed_shard *entry = &index->shards[number];
    char path[PATH_MAX];
    ND_TRY(shard_path(directory, number, path));
    ND_TRY(nd_shard_open(path, shard));
    nd_status status = ND_OK;
    if (shard->n_tokens != entry->n_tokens || shard->n_documents != entry->n_documents)
        status = ND_FAIL(
            ND_EDATA,
            "%s: %lld tokens in %lld documents; expected %lld in %lld by " ND_SHARD_INDEX_NAME,
            path, (long long)shard->n_tokens, (long long)shard->n_documents,
            (long long)entry->n_tokens, (long long)entry->n_documents);
    else if (strcmp(shard->split, entry->split) != 0)
        status = ND_FAIL(ND_EDATA, "%s: attribute split is '%s'; expected '%s'", path, shard->split,
                         entry->split);
    else if (strcmp(shard->tokenizer_sha256, index->tokenizer_sha256) != 0 ||
             shard->vocab_size != index->vocab_size)
        status = ND_FAIL(ND_EDATA,
                         "%s: packed with the tokenizer of SHA-256 %s and %lld pieces; expected %s "
                         "and %lld by " ND_SHARD_INDEX_NAME,
                         path, shard->tokenizer_sha256, (long long)shard->vocab_size,
                         index->tokenizer_sha256, (long long)index->vocab_size);
    if (status != ND_OK)
        nd_shard_close(shard);
    return status;
}

static nd_status verify_digest(const nd_data_directory *d, size_t number)
{
    char path[PATH_MAX], hex[ND_SHA256_HEX_SIZE];
    int64_t bytes;
    ND_TRY(shard_path(d, number, path));
    ND_TRY(nd_file_digest(path, &bytes, hex));
    return ND_CHECK(strcmp(hex, d->index.shards[number].sha256) == 0, ND_EDATA,
                    "%s: its SHA-256 is %s; expected %s by " ND_SHARD_INDEX_NAME
                    ": damaged, or of another data set; copy it here again, or pack again",
                    path, hex, d->index.shards[number].sha256);
}

static void print_split(const nd_data_directory *d, const char *split, FILE *out)
{
    int64_t tokens = 0, documents = 0;
    int shards = 0;
    for (size_t i = 0; i < d->index.count; i++) {
        const nd_indexed_shard *s = &d->index.shards[i];
        if (strcmp(s->split, split) != 0)
            continue;
        tokens += s->n_tokens;
        documents += s->n_documents;
        shards++;
    }
    fprintf(out, "%-18s %lld tokens, %lld documents, %d shards\n", split, (long long)tokens,
            (long long)documents, shards);
}

nd_status nd_data_directory_print(const char *path, bool verify, FILE *out)
{
    ND_CLEANUP(nd_data_directory_close) nd_data_directory d = {0};
    ND_TRY(nd_data_directory_open(path, &d));
    for (size_t i = 0; i < d.index.count; i++) {
        nd_shard shard;
        if (verify)
            ND_TRY(verify_digest(&d, i));
        ND_TRY(nd_data_directory_open_shard(&d, i, &shard));
        nd_shard_close(&shard);
    }
    fprintf(out, "data set           %s\nvocab_size         %lld\ntokenizer_sha256   %s\n", path,
            (long long)d.index.vocab_size, d.index.tokenizer_sha256);
    print_split(&d, "train", out);
    print_split(&d, "val", out);
    if (d.staged)
        fprintf(out,
                "unfinished         a pack stopped while it moved the new shards here; "
                "`nanochat_dist pack --index %s` finishes it\n",
                path);
    if (verify)
        fprintf(out, "verified           the SHA-256 of every shard is that of " ND_SHARD_INDEX_NAME
                     "\n");
    return ND_OK;
}
