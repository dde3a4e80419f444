#include "data/pack.h"

#include "core/base/durable_file.h"
#include "data/jsonl.h"
#include "data/packer.h"
#include "data/progress.h"
#include "data/shard.h"
#include "data/text_sources.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_BYTES = 1 << 16 };

typedef struct packing {
    const nd_pack_options *options;
    nd_packer packer;
    nd_progress progress;
    int64_t read_bytes;
} packing;

static nd_status check_options(const nd_pack_options *o)
{
    if (!(o->val_fraction >= 0 && o->val_fraction < 1))
        return ND_FAIL(ND_ECONFIG, "val fraction is %g; expected at least 0 and less than 1",
                       o->val_fraction);
    if (o->shard_tokens < 1)
        return ND_FAIL(ND_ECONFIG, "tokens a shard is %lld; expected 1 or more",
                       (long long)o->shard_tokens);
    if (o->input_count < 1)
        return ND_FAIL(ND_ECONFIG, "no input given to pack");
    return ND_OK;
}

/* The directory and what leads to it. */
static nd_status make_directory(const char *path)
{
    char part[PATH_MAX];
    if ((size_t)snprintf(part, sizeof part, "%s", path) >= sizeof part - 32)
        return ND_FAIL(ND_EIO, "%s: this path is too long", path);
    for (char *c = part + 1;; c++) {
        const char at = *c;
        if (at != '/' && at != '\0')
            continue;
        *c = '\0';
        if (mkdir(part, 0777) != 0 && errno != EEXIST)
            return ND_FAIL(ND_EIO, "%s: cannot make this directory: %s", part, strerror(errno));
        *c = at;
        if (at == '\0')
            break;
    }
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode))
        return ND_FAIL(ND_EIO, "%s: not a directory", path);
    return ND_OK;
}

static int is_shard_name(const char *name, const char *suffix)
{
    char train[32], val[32];
    snprintf(train, sizeof train, "train_*.h5%s", suffix);
    snprintf(val, sizeof val, "val_*.h5%s", suffix);
    return fnmatch(train, name, 0) == 0 || fnmatch(val, name, 0) == 0;
}

/* Refuses a shard of another tokenizer; one that cannot be read has none. */
static nd_status check_present_shard(const char *path, const nd_tokenizer *tokenizer)
{
    nd_shard shard;
    if (nd_shard_open(path, &shard) != ND_OK) {
        nd_error_clear();
        return ND_OK;
    }
    nd_status status = ND_OK;
    if (strcmp(shard.tokenizer_sha256, nd_tokenizer_sha256(tokenizer)) != 0)
        status = ND_FAIL(ND_EDATA,
                         "%s: this shard was packed with another tokenizer (SHA-256 %.12s...; the "
                         "one given has %.12s...); pack into another directory",
                         path, shard.tokenizer_sha256, nd_tokenizer_sha256(tokenizer));
    nd_shard_close(&shard);
    return status;
}

static nd_status check_present_file(const nd_pack_options *o, const nd_tokenizer *tokenizer,
                                    const char *name, bool removing)
{
    char path[PATH_MAX];
    const bool unfinished = is_shard_name(name, ND_TEMPORARY_SUFFIX);
    if (!unfinished && !is_shard_name(name, ""))
        return ND_OK;
    if ((size_t)snprintf(path, sizeof path, "%s/%s", o->out, name) >= sizeof path)
        return ND_FAIL(ND_EIO, "%s/%s: this path is too long", o->out, name);
    if (removing) {
        if (unlink(path) != 0)
            return ND_FAIL(ND_EIO, "%s: cannot remove this file: %s", path, strerror(errno));
        return ND_OK;
    }
    if (unfinished)
        return ND_OK;
    ND_TRY(check_present_shard(path, tokenizer));
    if (!o->overwrite)
        return ND_FAIL(ND_ECONFIG,
                       "%s: this directory already holds shards; give --overwrite to replace them, "
                       "or another directory",
                       o->out);
    return ND_OK;
}

static nd_status visit_directory(const nd_pack_options *o, const nd_tokenizer *tokenizer,
                                 bool removing)
{
    DIR *directory = opendir(o->out);
    if (!directory)
        return ND_FAIL(ND_EIO, "%s: cannot read this directory: %s", o->out, strerror(errno));
    nd_status status = ND_OK;
    const struct dirent *entry;
    while (status == ND_OK && (entry = readdir(directory)) != NULL)
        status = check_present_file(o, tokenizer, entry->d_name, removing);
    closedir(directory);
    return status;
}

/* Everything is checked before anything is removed. */
static nd_status prepare_directory(const nd_pack_options *o, const nd_tokenizer *tokenizer)
{
    char path[PATH_MAX];
    size_t size;
    ND_TRY(make_directory(o->out));
    ND_TRY(visit_directory(o, tokenizer, false));
    ND_TRY(visit_directory(o, tokenizer, true));
    const void *model = nd_tokenizer_model(tokenizer, &size);
    snprintf(path, sizeof path, "%.*s/tokenizer.model", PATH_MAX - 32, o->out);
    return nd_durable_write(path, model, size);
}

static void show(packing *p, size_t bytes)
{
    p->read_bytes += (int64_t)bytes;
    nd_progress_show(&p->progress, p->read_bytes, p->packer.result.tokens);
}

static nd_status pack_line(void *context, const char *text, size_t bytes, size_t line_bytes)
{
    packing *p = context;
    ND_TRY(nd_packer_text(&p->packer, text, bytes));
    ND_TRY(nd_packer_end_document(&p->packer));
    show(p, line_bytes);
    return ND_OK;
}

static nd_status pack_document(packing *p, FILE *file, const char *name)
{
    char chunk[READ_BYTES];
    size_t got;
    while ((got = fread(chunk, 1, sizeof chunk, file)) > 0) {
        ND_TRY(nd_packer_text(&p->packer, chunk, got));
        show(p, got);
    }
    if (ferror(file))
        return ND_FAIL(ND_EDATA, "%s: cannot read this file: %s", name, strerror(errno));
    return nd_packer_end_document(&p->packer);
}

static nd_status pack_file(void *context, const char *path, int64_t bytes)
{
    (void)bytes;
    packing *p = context;
    const bool standard_input = strcmp(path, "-") == 0;
    const char *name = standard_input ? "(standard input)" : path;
    FILE *file = standard_input ? stdin : fopen(path, "rbe");
    if (!file)
        return ND_FAIL(ND_EDATA, "%s: cannot open this file: %s", path, strerror(errno));
    const nd_status status = p->options->jsonl_field
                                 ? nd_jsonl_read(file, name, p->options->jsonl_field, pack_line, p)
                                 : pack_document(p, file, name);
    if (!standard_input)
        fclose(file);
    return status;
}

static nd_status pack_all(const nd_pack_options *o, const nd_tokenizer *tokenizer,
                          nd_pack_result *result)
{
    nd_status status;
    nd_text_total total;
    packing p = {.options = o};
    ND_TRY(nd_text_sources_total(o->inputs, o->input_count, o->glob, &total));
    ND_TRY(prepare_directory(o, tokenizer));
    ND_TRY_GOTO(nd_packer_open(o, tokenizer, &p.packer), done);
    p.progress = nd_progress_start(o->progress, total.has_stdin ? -1 : total.bytes);
    ND_TRY_GOTO(nd_text_sources_visit(o->inputs, o->input_count, o->glob, pack_file, &p), done);
    if (p.packer.result.documents == 0) {
        status = ND_FAIL(ND_EDATA, "%s: the inputs (%lld files) hold no text to pack", o->inputs[0],
                         (long long)total.files);
        goto done;
    }
    ND_TRY_GOTO(nd_packer_finish(&p.packer), done);
    nd_progress_end(&p.progress, p.read_bytes, p.packer.result.tokens);
    *result = p.packer.result;
done:
    nd_packer_close(&p.packer);
    return status;
}

nd_status nd_pack(const nd_pack_options *options, nd_pack_result *result)
{
    *result = (nd_pack_result){0};
    ND_TRY(check_options(options));
    nd_tokenizer *tokenizer;
    ND_TRY(nd_tokenizer_open(options->tokenizer, &tokenizer));
    const nd_status status =
        nd_tokenizer_eos(tokenizer) < 0
            ? ND_FAIL(ND_EDATA, "%s: this tokenizer has no </s> to end a document with",
                      options->tokenizer)
            : pack_all(options, tokenizer, result);
    nd_tokenizer_close(tokenizer);
    return status;
}
