#include "train/checkpoint/manifest.h"

#include "data/text/json.h"
#include "train/checkpoint/manifest_identity.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static nd_status checksum_of(json_t *root, char hex[ND_SHA256_HEX_SIZE])
{
    ND_AUTOFREE char *canonical = nd_json_text(root, JSON_COMPACT | JSON_SORT_KEYS);
    ND_FAIL_IF(!canonical, ND_ENOMEM, "no memory for the text of a manifest");
    return nd_sha256_hex(canonical, strlen(canonical), hex);
}

/* Snapshots have shorter checksums. */
static const char *checksum_name(const nd_checkpoint_tensor *t)
{
    return strlen(t->checksum) < ND_GMAC_HEX_SIZE ? "gmac" : "sha256";
}

/* `list`, or NULL if it lacks entries, for which there was no memory. */
static json_t *complete(json_t *list, int64_t count)
{
    if ((int64_t)json_array_size(list) == count)
        return list;
    json_decref(list);
    return NULL;
}

static json_t *tensors_json(const nd_checkpoint *c)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < c->tensor_count; i++) {
        const nd_checkpoint_tensor *t = &c->tensors[i];
        json_t *entry =
            json_pack("{s:s,s:s,s:s,s:s,s:[I,I],s:s}", "name", t->param, "part", t->part, "file",
                      t->file, "dtype", nd_dtype_name(t->dtype), "shape", (json_int_t)t->rows,
                      (json_int_t)t->cols, checksum_name(t), t->checksum);
        if (t->whole_rows > 0 &&
            json_object_set_new(entry, "slice",
                                json_pack("[I,I,I]", (json_int_t)t->from, (json_int_t)t->whole_rows,
                                          (json_int_t)t->whole_cols)) != 0) {
            json_decref(entry);
            break;
        }
        json_array_append_new(list, entry);
    }
    return complete(list, c->tensor_count);
}

static json_t *files_json(const nd_checkpoint *c)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < c->file_count; i++)
        json_array_append_new(list, json_pack("{s:s,s:I,s:s}", "name", c->files[i].name, "bytes",
                                              (json_int_t)c->files[i].bytes, "sha256",
                                              c->files[i].sha256));
    return complete(list, c->file_count);
}

/* Losses as text: exact, and unchanged by other programs that rewrite JSON. */
static bool add_health(json_t *root, const nd_health *h)
{
    char text[32];
    if (h->skipped == 0 && h->recent_count == 0)
        return true;
    json_t *recent = json_array();
    for (int64_t i = 0; i < h->recent_count; i++) {
        snprintf(text, sizeof text, "%.17g", h->recent[i]);
        json_array_append_new(recent, json_string(text));
    }
    return json_object_set_new(root, "health",
                               json_pack("{s:I,s:I,s:I,s:o}", "skipped", (json_int_t)h->skipped,
                                         "consecutive", (json_int_t)h->consecutive_skips,
                                         "rollbacks", (json_int_t)h->rollbacks, "recent_losses",
                                         complete(recent, h->recent_count))) == 0;
}

nd_status nd_manifest_format(const nd_checkpoint *c, char **text)
{
    char checksum[ND_SHA256_HEX_SIZE];
    json_auto_t *root = json_pack(
        "{s:i,s:I,s:I,s:I,s:I,s:s,s:o,s:o}", "format_version", (int)ND_CHECKPOINT_FORMAT_VERSION,
        "step", (json_int_t)c->step, "tokens", (json_int_t)c->tokens, "restarts",
        (json_int_t)c->restarts, "next_sample", (json_int_t)c->next_sample, "state_sha256",
        c->state_sha256, "tensors", tensors_json(c), "files", files_json(c));
    const bool whole =
        root && add_health(root, &c->health) && nd_manifest_add_identity(root, &c->identity) &&
        (c->data_start == 0 ||
         json_object_set_new(root, "data_start", json_integer(c->data_start)) == 0) &&
        (!c->approximate[0] ||
         json_object_set_new(root, "approximate", json_string(c->approximate)) == 0);
    ND_FAIL_IF(!whole, ND_ENOMEM, "no memory for a manifest");
    ND_TRY(checksum_of(root, checksum));
    *text = json_object_set_new(root, "checksum", json_string(checksum)) == 0
                ? nd_json_text(root, JSON_INDENT(1))
                : NULL;
    return ND_CHECK(*text, ND_ENOMEM, "no memory for the text of a manifest");
}

/* Absent for models that were not trained. */
static nd_status parse_health(json_t *root, const char *path, nd_health *h)
{
    json_t *json = json_object_get(root, "health"), *recent, *item;
    /* Earlier versions wrote "in_row". */
    const char *consecutive = json_object_get(json, "consecutive") ? "consecutive" : "in_row";
    json_int_t skipped, skips, rollbacks;
    size_t i;
    if (!json)
        return ND_OK;
    if (json_unpack(json, "{s:I,s:I,s:I,s:o}", "skipped", &skipped, consecutive, &skips,
                    "rollbacks", &rollbacks, "recent_losses", &recent) != 0 ||
        json_array_size(recent) > ND_HEALTH_WINDOW)
        return ND_FAIL(ND_ECHECKPOINT, "%s: \"health\" is malformed", path);
    h->skipped = skipped;
    h->consecutive_skips = skips;
    h->rollbacks = rollbacks;
    json_array_foreach(recent, i, item)
    {
        const char *text = json_string_value(item);
        h->recent[h->recent_count++] = text ? strtod(text, NULL) : 0.0;
    }
    return ND_OK;
}

static bool copy_text(char *out, size_t size, const char *text)
{
    if (strlen(text) >= size)
        return false;
    strcpy(out, text);
    return true;
}

static bool parse_dtype(const char *name, nd_dtype *dtype)
{
    static const nd_dtype stored[] = {ND_F32, ND_BF16, ND_I8, ND_U8};
    for (size_t i = 0; i < sizeof stored / sizeof *stored; i++)
        if (strcmp(name, nd_dtype_name(stored[i])) == 0)
            return *dtype = stored[i], true;
    return false;
}

/* File names in the manifest become paths, so only plain names are accepted. */
static bool plain_name(const char *name)
{
    return *name && *name != '.' && strchr(name, '/') == NULL;
}

/* Absent except for parameters owned by rows in snapshots. */
static bool parse_slice(json_t *json, nd_checkpoint_tensor *t)
{
    json_int_t from, rows, cols;
    if (!json)
        return true;
    if (json_unpack(json, "[I,I,I]", &from, &rows, &cols) != 0)
        return false;
    t->from = from;
    t->whole_rows = rows;
    t->whole_cols = cols;
    return from >= 0 && rows > 0 && cols > 0 && rows <= INT64_MAX / 8 / cols &&
           from <= rows * cols * 8;
}

static bool parse_tensor(json_t *json, nd_checkpoint_tensor *t)
{
    const char *name, *part, *file, *dtype, *checksum;
    json_int_t rows, cols;
    if (json_unpack(json, "{s:s,s:s,s:s,s:s,s:[I,I]}", "name", &name, "part", &part, "file", &file,
                    "dtype", &dtype, "shape", &rows, &cols) != 0 ||
        (json_unpack(json, "{s:s}", "sha256", &checksum) != 0 &&
         json_unpack(json, "{s:s}", "gmac", &checksum) != 0))
        return false;
    t->rows = rows;
    t->cols = cols;
    if (!parse_slice(json_object_get(json, "slice"), t))
        return false;
    return rows > 0 && cols > 0 && rows <= INT64_MAX / 8 / cols && plain_name(file) &&
           parse_dtype(dtype, &t->dtype) && copy_text(t->param, sizeof t->param, name) &&
           copy_text(t->part, sizeof t->part, part) && copy_text(t->file, sizeof t->file, file) &&
           copy_text(t->checksum, sizeof t->checksum, checksum);
}

static bool parse_file(json_t *json, nd_checkpoint_file *f)
{
    const char *name, *sha;
    json_int_t bytes;
    if (json_unpack(json, "{s:s,s:I,s:s}", "name", &name, "bytes", &bytes, "sha256", &sha) != 0)
        return false;
    f->bytes = bytes;
    return plain_name(name) && copy_text(f->name, sizeof f->name, name) &&
           copy_text(f->sha256, sizeof f->sha256, sha);
}

static nd_status parse_lists(json_t *tensors, json_t *files, const char *path, nd_checkpoint *c)
{
    c->tensors = calloc(json_array_size(tensors) + 1, sizeof *c->tensors);
    c->files = calloc(json_array_size(files) + 1, sizeof *c->files);
    ND_FAIL_IF(!c->tensors || !c->files, ND_ENOMEM, "no memory for the manifest %s", path);
    size_t i;
    json_t *item;
    json_array_foreach(tensors, i, item)
    {
        ND_FAIL_IF(!parse_tensor(item, &c->tensors[c->tensor_count++]), ND_ECHECKPOINT,
                   "%s: entry %zu of \"tensors\" is malformed", path, i);
    }
    json_array_foreach(files, i, item)
    {
        nd_checkpoint_file *f = &c->files[c->file_count++];
        ND_FAIL_IF(!parse_file(item, f), ND_ECHECKPOINT, "%s: entry %zu of \"files\" is malformed",
                   path, i);
        c->has_tokenizer |= strcmp(f->name, "tokenizer.model") == 0;
    }
    return ND_OK;
}

static nd_status verify_checksum(json_t *root, const char *path)
{
    char stated[ND_SHA256_HEX_SIZE] = "", actual[ND_SHA256_HEX_SIZE];
    const char *text = json_string_value(json_object_get(root, "checksum"));
    ND_FAIL_IF(!text || !copy_text(stated, sizeof stated, text), ND_ECHECKPOINT,
               "%s: has no checksum", path);
    json_object_del(root, "checksum");
    ND_TRY(checksum_of(root, actual));
    return ND_CHECK(strcmp(stated, actual) == 0, ND_ECHECKPOINT,
                    "%s: damaged: its checksum is %.12s..., its text has %.12s...", path, stated,
                    actual);
}

/* Far from where sums of them with a batch or an epoch overflow. */
static nd_status check_counts(const nd_checkpoint *c, const char *path)
{
    const struct {
        const char *name;
        int64_t value;
    } counts[] = {{"step", c->step},
                  {"tokens", c->tokens},
                  {"restarts", c->restarts},
                  {"next_sample", c->next_sample}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        ND_FAIL_IF(counts[i].value < 0 || counts[i].value > (int64_t)1 << 62, ND_ECHECKPOINT,
                   "%s: \"%s\" is %lld; expected 0 to 2^62", path, counts[i].name,
                   (long long)counts[i].value);
    return ND_CHECK(c->data_start >= 0 && c->data_start <= c->next_sample, ND_ECHECKPOINT,
                    "%s: \"data_start\" is %lld; expected 0 to next_sample = %lld", path,
                    (long long)c->data_start, (long long)c->next_sample);
}

static nd_status parse_root(json_t *root, const char *path, nd_checkpoint *c)
{
    json_error_t error;
    int version = 0;
    json_int_t step, tokens, restarts, next_sample;
    const char *state, *approximate;
    json_t *tensors, *files;
    ND_TRY(verify_checksum(root, path));
    ND_FAIL_IF(json_unpack_ex(root, &error, 0, "{s:i,s:I,s:I,s:I,s:I,s:s,s:o,s:o}",
                              "format_version", &version, "step", &step, "tokens", &tokens,
                              "restarts", &restarts, "next_sample", &next_sample, "state_sha256",
                              &state, "tensors", &tensors, "files", &files) != 0,
               ND_ECHECKPOINT, "%s: %s", path, error.text);
    ND_FAIL_IF(version != ND_CHECKPOINT_FORMAT_VERSION, ND_ECHECKPOINT,
               "%s: format_version is %d, this program reads %d", path, version,
               (int)ND_CHECKPOINT_FORMAT_VERSION);
    c->step = step;
    c->tokens = tokens;
    c->restarts = restarts;
    c->next_sample = next_sample;
    snprintf(c->state_sha256, sizeof c->state_sha256, "%.64s", state);
    c->data_start = json_integer_value(json_object_get(root, "data_start")); /* 0 when absent */
    ND_TRY(check_counts(c, path));
    ND_TRY(parse_health(root, path, &c->health));
    ND_TRY(nd_manifest_parse_identity(root, path, &c->identity));
    approximate = json_string_value(json_object_get(root, "approximate"));
    snprintf(c->approximate, sizeof c->approximate, "%s", approximate ? approximate : "");
    return parse_lists(tensors, files, path, c);
}

nd_status nd_manifest_parse(const char *text, size_t size, const char *path, nd_checkpoint *c)
{
    json_error_t error;
    json_auto_t *root = NULL;
    ND_TRY(nd_json_parse(text, size, JSON_REJECT_DUPLICATES, path, &root, &error));
    ND_FAIL_IF(!root, ND_ECHECKPOINT, "%s:%d: not JSON: %s", path, error.line, error.text);
    return nd_json_status(parse_root(root, path, c), path);
}
