#include "core/base/durable_file.h"
#include "core/base/float_formats.h"
#include "data/text/json.h"
#include "exchange/export.h"
#include "exchange/hf_layout.h"
#include "exchange/hf_metadata.h"
#include "exchange/safetensors_write.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The scales as JSON text, for ND_HF_SCALES_KEY. */
static nd_status scales_text(const nd_source *s, char **text)
{
    json_auto_t *scales = json_object();
    for (int64_t i = 0; i < s->params.count; i++) {
        ND_CLEANUP(nd_source_tensor_free) nd_source_tensor t = {0};
        char name[ND_HF_NAME_MAX];
        if (s->params.list[i].role != ND_ROLE_TERNARY)
            continue;
        ND_TRY(nd_source_read(s, i, &t));
        nd_hf_name(t.param, name);
        ND_FAIL_IF(json_object_set_new(scales, name, json_real((double)t.scales[0])) != 0,
                   ND_ENOMEM, "no memory for the scale of %s", name);
    }
    *text = nd_json_text(scales, JSON_COMPACT);
    return ND_CHECK(*text, ND_ENOMEM, "no memory for the scales' text");
}

static nd_status put_metadata(const nd_source *s, nd_safetensors_writer *w)
{
    char group[32];
    ND_AUTOFREE char *scales = NULL;
    ND_TRY(nd_safetensors_put_text(w, "format", "pt"));
    ND_TRY(nd_safetensors_put_text(w, ND_HF_ACTIVATIONS_KEY, ND_HF_ACTIVATIONS_TEXT));
    ND_TRY(nd_safetensors_put_text(w, ND_HF_TERNARY_KEY, "true"));
    snprintf(group, sizeof group, "%lld", (long long)s->model.group_size);
    ND_TRY(nd_safetensors_put_text(w, ND_HF_GROUP_KEY, group));
    if (s->model.group_size > 0)
        return ND_OK;
    ND_TRY(scales_text(s, &scales));
    return nd_safetensors_put_text(w, ND_HF_SCALES_KEY, scales);
}

static nd_status write_rows(const nd_source *s, const nd_source_tensor *t, bool bf16, float *row,
                            nd_safetensors_writer *w)
{
    const nd_param *p = t->param;
    uint16_t *halves = (uint16_t *)(row + p->cols);
    for (int64_t r = 0; r < p->rows; r++) {
        nd_source_row(t, nd_hf_row(&s->model, p, r), row);
        for (int64_t i = 0; i < p->cols; i++)
            halves[i] = nd_bf16_from_float(row[i]);
        ND_TRY(bf16 ? nd_safetensors_write(w, halves, (size_t)p->cols * sizeof *halves)
                    : nd_safetensors_write(w, row, (size_t)p->cols * sizeof *row));
    }
    return ND_OK;
}

static nd_status write_tensor(const nd_source *s, int64_t index, bool bf16,
                              nd_safetensors_writer *w)
{
    ND_CLEANUP(nd_source_tensor_free) nd_source_tensor t = {0};
    ND_TRY(nd_source_read(s, index, &t));
    ND_AUTOFREE float *row = malloc((size_t)t.param->cols * (sizeof(float) + sizeof(uint16_t)));
    ND_FAIL_IF(!row, ND_ENOMEM, "no memory for a row of %s", t.param->name);
    return write_rows(s, &t, bf16, row, w);
}

static nd_status write_model(const nd_source *s, bool bf16, const char *path,
                             nd_safetensors_writer *w)
{
    ND_TRY(put_metadata(s, w));
    for (int64_t i = 0; i < s->params.count; i++) {
        const nd_param *p = &s->params.list[i];
        char name[ND_HF_NAME_MAX];
        nd_hf_name(p, name);
        ND_TRY(nd_safetensors_put_tensor(w, name, bf16, p->rows, p->cols, p->role == ND_ROLE_NORM));
    }
    ND_TRY(nd_safetensors_writer_start(w, path));
    for (int64_t i = 0; i < s->params.count; i++)
        ND_TRY(write_tensor(s, i, bf16, w));
    return nd_safetensors_writer_finish(w);
}

/* Takes ownership of `text`. */
static nd_status write_text(const char *directory, const char *name, char *text)
{
    char path[PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    const nd_status status = nd_file_write_synced(path, text, strlen(text));
    free(text);
    return status;
}

/* Tells transformers to build its tokenizer from tokenizer.model: no normalization, the document
 * separator first. */
static nd_status write_tokenizer(const nd_source *s, const char *directory)
{
    char path[PATH_MAX + 32];
    const nd_model_file *v = &s->vocabulary;
    snprintf(path, sizeof path, "%s/tokenizer.model", directory);
    ND_TRY(nd_file_write_synced(path, s->tokenizer, s->tokenizer_bytes));
    json_auto_t *root =
        json_pack("{s:s,s:b,s:b,s:b,s:b,s:b,s:I}", "tokenizer_class", "LlamaTokenizer",
                  "add_bos_token", v->eos >= 0, "add_eos_token", 0, "add_prefix_space", 0, "legacy",
                  0, "clean_up_tokenization_spaces", 0, "model_max_length",
                  (json_int_t)s->config.model.max_seq_len);
    bool whole = root != NULL;
    if (v->eos >= 0)
        whole = whole && json_object_set_new(root, "bos_token", json_string("</s>")) == 0 &&
                json_object_set_new(root, "eos_token", json_string("</s>")) == 0;
    for (int i = 0; i < v->count; i++)
        if (v->pieces[i].type == ND_PIECE_UNKNOWN)
            whole = whole && json_object_set_new(
                                 root, "unk_token",
                                 json_stringn(v->pieces[i].name, v->pieces[i].name_bytes)) == 0;
    char *text = whole ? nd_json_text(root, JSON_INDENT(2)) : NULL;
    ND_FAIL_IF(!text, ND_ENOMEM, "no memory for the tokenizer's configuration");
    return write_text(directory, "tokenizer_config.json", text);
}

static nd_status write_files(const nd_source *s, bool bf16, const char *directory)
{
    char path[PATH_MAX + 32], *text = NULL;
    const int mark = s->has_tokenizer ? s->vocabulary.eos : -1;
    nd_safetensors_writer *w = NULL;
    snprintf(path, sizeof path, "%s/model.safetensors", directory);
    ND_TRY(nd_safetensors_writer_create(&w));
    const nd_status status = write_model(s, bf16, path, w);
    nd_safetensors_writer_close(w);
    ND_TRY(status);
    ND_TRY(nd_hf_config_text(&s->config, bf16, mark, &text));
    ND_TRY(write_text(directory, "config.json", text));
    ND_TRY(nd_hf_generation_text(mark, &text));
    ND_TRY(write_text(directory, "generation_config.json", text));
    if (s->has_tokenizer)
        ND_TRY(write_tokenizer(s, directory));
    return nd_path_sync(directory);
}

/* rename() replaces an empty directory only, so nothing is overwritten. */
static nd_status check_empty(const char *path)
{
    struct dirent **entries;
    const int count = scandir(path, &entries, NULL, NULL);
    for (int i = 0; i < count; i++)
        free(entries[i]);
    if (count >= 0)
        free(entries);
    ND_FAIL_IF(count > 2, ND_ECONFIG, "--out %s: the directory is not empty; name a new one", path);
    ND_FAIL_IF(count < 0 && errno != ENOENT, ND_EIO, "--out %s: %s", path, strerror(errno));
    return ND_OK;
}

nd_status nd_export_safetensors(const nd_source *s, bool bf16, const char *path)
{
    char final[PATH_MAX], temporary[PATH_MAX];
    size_t bytes = strlen(path);
    while (bytes > 1 && path[bytes - 1] == '/')
        bytes--;
    if ((size_t)snprintf(final, sizeof final, "%.*s", (int)bytes, path) >= sizeof final - 96)
        return ND_FAIL(ND_EIO, "%.80s...: the path is too long", path);
    ND_TRY(check_empty(path));
    ND_TRY(nd_durable_prepare(final));
    ND_TRY(nd_temporary_create(final, temporary, NULL));
    nd_status status = write_files(s, bf16, temporary);
    ND_IF_OK(check_empty(path)); /* another export may have ended here */
    if (status == ND_OK)
        rmdir(path); /* an empty one; where it cannot be removed the next line fails */
    ND_IF_OK(nd_durable_rename(temporary, final));
    if (status != ND_OK)
        nd_directory_remove(temporary);
    return status;
}
