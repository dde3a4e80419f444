#include "data/pack/pack.h"

#include "core/base/durable_file.h"
#include "data/data_directory.h"
#include "data/pack/pack_present.h"
#include "data/pack/pack_staging.h"
#include "data/pack/packer.h"
#include "data/pack/progress.h"
#include "data/text/jsonl.h"
#include "data/text/text_input.h"
#include "data/text/text_sources.h"

#include <limits.h>
#include <string.h>
#include <unistd.h>

enum { READ_BYTES = 1 << 16 };

typedef struct packing {
    const nd_pack_options *options;
    nd_packer packer;
    nd_progress progress;
    int64_t read_bytes, total; /* of all files; total -1: unknown */
} packing;

static nd_status check_options(const nd_pack_options *o)
{
    ND_FAIL_IF(!(o->val_fraction >= 0 && o->val_fraction < 1), ND_ECONFIG,
               "--val-fraction is %g; expected at least 0 and less than 1", o->val_fraction);
    ND_FAIL_IF(o->shard_tokens < 1, ND_ECONFIG, "--shard-tokens is %lld; expected 1 or more",
               (long long)o->shard_tokens);
    ND_FAIL_IF(o->input_count < 1, ND_ECONFIG, "no input given to pack");
    ND_FAIL_IF(o->skip_bad && !o->jsonl_field, ND_ECONFIG,
               "--skip-bad is about JSON Lines; give --jsonl-field too");
    return ND_OK;
}

static nd_status check_tokenizer(const char *path, const char *packed_with,
                                 const nd_tokenizer *tokenizer)
{
    return ND_CHECK(strcmp(packed_with, nd_tokenizer_sha256(tokenizer)) == 0, ND_EDATA,
                    "%s: this shard was packed with another tokenizer (SHA-256 %.12s...; the "
                    "one given has %.12s...); pack into another directory",
                    path, packed_with, nd_tokenizer_sha256(tokenizer));
}

/* Refuses a shard of another tokenizer; the index knows that of a damaged one. */
static nd_status check_present_shard(const char *path, const nd_pack_present *present,
                                     const nd_tokenizer *tokenizer)
{
    ND_CLEANUP(nd_shard_close) nd_shard shard = {.fd = -1};
    const nd_status opened = nd_shard_open(path, &shard);
    if (opened != ND_OK) {
        ND_TRY(nd_error_tolerate(opened));
        return present->index.count == 0
                   ? ND_OK
                   : check_tokenizer(path, present->index.tokenizer_sha256, tokenizer);
    }
    return check_tokenizer(path, shard.tokenizer_sha256, tokenizer);
}

typedef struct present_files {
    const nd_pack_options *options;
    const nd_tokenizer *tokenizer;
    const nd_pack_present *present;
    bool shards, index;
} present_files;

static nd_status check_present_file(void *context, const char *name)
{
    char path[PATH_MAX];
    present_files *p = context;
    const nd_pack_options *o = p->options;
    p->index |= strcmp(name, ND_SHARD_INDEX_NAME) == 0;
    if (!nd_shard_name_matches(name, ""))
        return ND_OK;
    p->shards = true;
    ND_TRY(nd_data_path(o->out, "", name, path));
    ND_TRY(check_present_shard(path, p->present, p->tokenizer));
    ND_FAIL_IF(!o->overwrite, ND_ECONFIG,
               "%s: this directory already holds shards; give --overwrite to replace them, or "
               "another directory",
               o->out);
    ND_TRY(nd_pack_present_may_go(p->present, name));
    return ND_CHECK(
        nd_pack_staging_owns(name), ND_ECONFIG,
        "%s: pack gives shards other names and does not remove this file; move it elsewhere, "
        "or give another directory",
        path);
}

/* Refuses to overwrite a tokenizer.model with other content, which pack cannot have written. */
static nd_status check_present_model(const nd_pack_options *o, const nd_tokenizer *tokenizer)
{
    char path[PATH_MAX], hex[ND_SHA256_HEX_SIZE];
    int64_t bytes;
    ND_TRY(nd_data_path(o->out, "", "tokenizer.model", path));
    if (access(path, F_OK) != 0)
        return ND_OK;
    ND_TRY(nd_file_digest(path, &bytes, hex));
    return ND_CHECK(
        strcmp(hex, nd_tokenizer_sha256(tokenizer)) == 0, ND_EDATA,
        "%s: another tokenizer (SHA-256 %.12s...; the one given has %.12s...); pack into "
        "another directory",
        path, hex, nd_tokenizer_sha256(tokenizer));
}

static nd_status check_directory(const nd_pack_options *o, const nd_tokenizer *tokenizer)
{
    char path[PATH_MAX];
    ND_CLEANUP(nd_pack_present_close) nd_pack_present present = {0};
    present_files files = {.options = o, .tokenizer = tokenizer, .present = &present};
    ND_TRY(nd_pack_present_open(o->out, &present));
    ND_TRY(nd_data_directory_list(o->out, check_present_file, &files));
    ND_TRY(nd_data_path(o->out, "", ND_SHARD_INDEX_NAME, path));
    ND_FAIL_IF(files.index && !files.shards, ND_ECONFIG,
               "%s: the index of a data set goes here, and this file has no shards beside it; "
               "move it elsewhere, or give another directory",
               path);
    return check_present_model(o, tokenizer);
}

static void show_progress(packing *p, const nd_text_reader *reader)
{
    nd_progress_show(&p->progress, p->read_bytes + nd_text_reader_consumed(reader),
                     p->packer.result->tokens);
}

static nd_status pack_line(void *context, const nd_text_reader *reader, const char *text,
                           size_t bytes)
{
    packing *p = context;
    ND_TRY(nd_packer_text(&p->packer, text, bytes));
    ND_TRY(nd_packer_end_document(&p->packer));
    show_progress(p, reader);
    return ND_OK;
}

static nd_status pack_document(packing *p, nd_text_reader *reader)
{
    char chunk[READ_BYTES];
    for (size_t got = 1; got > 0;) {
        ND_TRY(nd_text_reader_read(reader, chunk, sizeof chunk, &got));
        ND_TRY(nd_packer_text(&p->packer, chunk, got));
        show_progress(p, reader);
    }
    return nd_packer_end_document(&p->packer);
}

static nd_status pack_file(void *context, const char *path, int64_t bytes, int named)
{
    (void)bytes;
    packing *p = context;
    const nd_pack_options *o = p->options;
    nd_left_out *left_out = &p->packer.result->left_out;
    const nd_text_rules rules = {.binary = o->binary, .refuse_jsonl = !o->jsonl_field};
    const nd_jsonl_rules lines = {o->jsonl_field, o->skip_bad, left_out};
    nd_text_reader *reader;
    ND_TRY(nd_text_input_open(path, named, &rules, left_out, &reader));
    if (!reader)
        return ND_OK;
    const nd_status status =
        o->jsonl_field ? nd_jsonl_read(reader, &lines, pack_line, p) : pack_document(p, reader);
    p->read_bytes += nd_text_reader_consumed(reader);
    nd_text_reader_close(reader);
    return status;
}

static nd_status add_size(void *context, const char *path, int64_t bytes, int named)
{
    (void)path, (void)named;
    packing *p = context;
    p->total = bytes < 0 || p->total < 0 ? -1 : p->total + bytes;
    return ND_OK;
}

static nd_status pack_sources(packing *p, const nd_text_sources *sources,
                              const nd_tokenizer *tokenizer, nd_pack_staging *staging)
{
    char path[PATH_MAX];
    size_t size;
    const void *model = nd_tokenizer_model(tokenizer, &size);
    nd_pack_result *result = p->packer.result;
    ND_TRY(nd_text_sources_visit(sources, pack_file, p, &result->left_out));
    if (result->documents == 0)
        return nd_text_sources_fail_empty(sources, "pack");
    ND_TRY(nd_packer_finish(&p->packer));
    ND_TRY(nd_pack_staging_confirm(staging));
    ND_TRY(nd_data_path(staging->path, "", "tokenizer.model", path));
    ND_TRY(nd_durable_write(path, model, size));
    ND_TRY(nd_data_path(staging->path, "", ND_SHARD_INDEX_NAME, path));
    const nd_status written = nd_shard_index_write(&p->packer.index, path);
    if (written != ND_OK)
        unlink(path); /* it would mark the pack as complete */
    return written == ND_OK ? nd_pack_staging_publish(staging) : written;
}

static nd_status pack_to_staging(const nd_pack_options *o, const nd_tokenizer *tokenizer,
                                 nd_pack_result *result)
{
    ND_CLEANUP(nd_pack_staging_close) nd_pack_staging staging = {.lock = -1};
    packing p = {.options = o};
    const nd_text_sources sources = {o->inputs, o->input_count, o->glob, o->out};
    ND_TRY(nd_text_sources_visit(&sources, add_size, &p, NULL));
    ND_TRY(nd_pack_staging_open(o->out, &staging));
    ND_TRY(check_directory(o, tokenizer));
    nd_status status = nd_packer_open(o, tokenizer, &staging, result, &p.packer);
    p.progress = nd_progress_start(o->progress, p.total);
    ND_IF_OK(pack_sources(&p, &sources, tokenizer, &staging));
    if (status == ND_OK)
        nd_progress_end(&p.progress, p.read_bytes, result->tokens);
    nd_packer_close(&p.packer);
    return status;
}

nd_status nd_pack(const nd_pack_options *options, nd_pack_result *result)
{
    memset(result, 0, sizeof *result);
    ND_TRY(check_options(options));
    nd_tokenizer *tokenizer;
    ND_TRY(nd_tokenizer_open(options->tokenizer, &tokenizer));
    const nd_status status =
        nd_tokenizer_eos(tokenizer) < 0
            ? ND_FAIL(ND_EDATA, "%s: this tokenizer has no </s> to end a document with",
                      options->tokenizer)
            : pack_to_staging(options, tokenizer, result);
    nd_tokenizer_close(tokenizer);
    return status;
}
