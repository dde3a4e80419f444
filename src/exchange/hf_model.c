#include "exchange/hf_model.h"

#include "core/base/durable_file.h"
#include "data/text/json.h"
#include "exchange/hf_layout.h"
#include "exchange/hf_metadata.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILES_MAX = 4096, SHAPE_BYTES = 24 * ND_SAFETENSORS_DIMENSIONS_MAX + 8 };

static nd_status join_path(char path[PATH_MAX], const char *directory, const char *name)
{
    return ND_CHECK(snprintf(path, PATH_MAX, "%s/%s", directory, name) < PATH_MAX, ND_EDATA,
                    "%.80s...: the path is too long", directory);
}

static nd_status open_file(nd_hf_model *m, const char *directory, const char *name)
{
    nd_hf_file *grown = realloc(m->files, (size_t)(m->file_count + 1) * sizeof *grown);
    ND_FAIL_IF(!grown, ND_ENOMEM, "no memory for %s", name);
    m->files = grown;
    nd_hf_file *f = &m->files[m->file_count++];
    memset(f, 0, sizeof *f);
    ND_TRY(join_path(f->path, directory, name));
    ND_TRY(nd_mapped_file_open(f->path, &f->mapped));
    return nd_safetensors_parse(f->mapped.bytes, f->mapped.size, f->path, &f->tensors);
}

static bool is_open(const nd_hf_model *m, const char *name)
{
    for (int i = 0; i < m->file_count; i++)
        if (strcmp(strrchr(m->files[i].path, '/') + 1, name) == 0)
            return true;
    return false;
}

/* Opens every file that the index names. */
static nd_status open_shards(nd_hf_model *m, const char *directory, const char *index_path)
{
    ND_AUTOFREE void *text = NULL;
    size_t size = 0;
    json_error_t error;
    const char *tensor;
    json_t *value;
    ND_TRY(nd_read_whole_file(index_path, ND_EDATA, &text, &size));
    json_auto_t *root = NULL;
    ND_TRY(nd_json_parse(text, size, JSON_REJECT_DUPLICATES, index_path, &root, &error));
    json_t *map = json_object_get(root, "weight_map");
    ND_FAIL_IF(!json_is_object(map), ND_EDATA, "%s: not a JSON object with a weight_map%s%s",
               index_path, root ? "" : ": ", root ? "" : error.text);
    json_object_foreach(map, tensor, value)
    {
        const char *name = json_string_value(value);
        ND_FAIL_IF(!name || !*name || *name == '.' || strchr(name, '/') ||
                       m->file_count == FILES_MAX,
                   ND_EDATA, "%s: the file of %.80s is '%.80s'; expected a plain name", index_path,
                   tensor, name ? name : "not a string");
        if (!is_open(m, name))
            ND_TRY(open_file(m, directory, name));
    }
    return ND_OK;
}

/* One file takes precedence over an index, as in transformers, which leaves the index of a model
 * that was in shards when it saves it again in one file. */
static nd_status open_files(nd_hf_model *m, const char *directory)
{
    char whole[PATH_MAX], index[PATH_MAX];
    ND_TRY(join_path(whole, directory, "model.safetensors"));
    ND_TRY(join_path(index, directory, "model.safetensors.index.json"));
    if (access(whole, F_OK) == 0)
        return open_file(m, directory, "model.safetensors");
    ND_FAIL_IF(access(index, F_OK) != 0, ND_EDATA,
               "%s: holds neither model.safetensors nor model.safetensors.index.json; save the "
               "model as safetensors (save_pretrained of transformers does)",
               directory);
    return open_shards(m, directory, index);
}

/* Reads the metadata of this program's own exports. */
static nd_status read_metadata(nd_hf_model *m)
{
    const nd_hf_file *f = &m->files[0];
    const char *ternary = nd_safetensors_text(&f->tensors, ND_HF_TERNARY_KEY);
    const char *group = nd_safetensors_text(&f->tensors, ND_HF_GROUP_KEY);
    const char *scales = nd_safetensors_text(&f->tensors, ND_HF_SCALES_KEY);
    bool has_digest;
    ND_TRY(nd_safetensors_verify(&f->tensors, f->path, &has_digest));
    m->ternary = ternary && strcmp(ternary, "true") == 0;
    if (!m->ternary)
        return ND_OK;
    if (group)
        ND_TRY(nd_config_set_key(&m->config, "model", "group_size", group, f->path));
    if (scales) {
        ND_TRY(nd_json_parse(scales, strlen(scales), 0, f->path, &m->scales, NULL));
        ND_FAIL_IF(!json_is_object(m->scales), ND_EDATA, "%s: damaged: %s is not an object",
                   f->path, ND_HF_SCALES_KEY);
    }
    return nd_config_check_model(&m->config);
}

static const nd_safetensors_tensor *find(const nd_hf_model *m, const char *name,
                                         const nd_hf_file **file)
{
    for (int i = 0; i < m->file_count; i++) {
        const nd_safetensors_tensor *t = nd_safetensors_find(&m->files[i].tensors, name);
        if (t) {
            *file = &m->files[i];
            return t;
        }
    }
    return NULL;
}

/* "[64, 32]"; `text` has room for ND_SAFETENSORS_DIMENSIONS_MAX numbers. */
static void format_shape(const int64_t *lengths, int count, char *text)
{
    text += sprintf(text, "[");
    for (int d = 0; d < count; d++)
        text += sprintf(text, "%s%lld", d ? ", " : "", (long long)lengths[d]);
    sprintf(text, "]");
}

static nd_status check_parameter(const nd_hf_model *m, const char *directory, const nd_param *p)
{
    char name[ND_HF_NAME_MAX], found[SHAPE_BYTES], expected[SHAPE_BYTES];
    const nd_hf_file *file = NULL;
    const int64_t shape[] = {p->rows, p->cols};
    const int vector = p->role == ND_ROLE_NORM, dimensions = vector ? 1 : 2;
    nd_hf_name(p, name);
    const nd_safetensors_tensor *t = find(m, name, &file);
    ND_FAIL_IF(!t, ND_EDATA, "%s: holds no tensor %s, which its config.json asks for",
               m->file_count == 1 ? m->files[0].path : directory, name);
    format_shape(t->shape, t->dimensions, found);
    format_shape(shape + vector, dimensions, expected);
    ND_FAIL_IF(strcmp(found, expected) != 0, ND_EDATA, "%s: %s is %s; expected %s", file->path,
               name, found, expected);
    return ND_CHECK(nd_safetensors_has_floats(t), ND_EDATA,
                    "%s: %s has type %s; expected F32, BF16, F16 or F64", file->path, name,
                    t->dtype);
}

/* Whether old files may hold the tensor though it is a copy or follows from the configuration. */
static bool is_redundant(const nd_hf_model *m, const char *name)
{
    const char *rope = ".rotary_emb.inv_freq";
    const size_t bytes = strlen(name), end = strlen(rope);
    return (bytes > end && strcmp(name + bytes - end, rope) == 0) ||
           (m->model.tied && strcmp(name, "lm_head.weight") == 0);
}

/* A tied head may be there too, but not another one, which this program would leave out. */
static nd_status check_tied_head(const nd_hf_model *m)
{
    const nd_hf_file *file = NULL, *other = NULL;
    const nd_safetensors_tensor *head = m->model.tied ? find(m, "lm_head.weight", &file) : NULL;
    const nd_safetensors_tensor *embedding = find(m, "model.embed_tokens.weight", &other);
    return ND_CHECK(!head || (head->bytes == embedding->bytes &&
                              memcmp(head->data, embedding->data, head->bytes) == 0),
                    ND_EDATA,
                    "%s: lm_head.weight is not model.embed_tokens.weight, but config.json says "
                    "tie_word_embeddings = true; %s",
                    file->path,
                    m->model.arch == ND_ARCH_LLAMA ? "set that to false, or remove lm_head.weight"
                                                   : "bitnet has no separate head here");
}

static bool is_parameter(const nd_hf_model *m, const char *name)
{
    char hf_name[ND_HF_NAME_MAX];
    for (int64_t i = 0; i < m->params.count; i++) {
        nd_hf_name(&m->params.list[i], hf_name);
        if (strcmp(hf_name, name) == 0)
            return true;
    }
    return false;
}

static nd_status check_tensors(const nd_hf_model *m, const char *directory)
{
    for (int64_t i = 0; i < m->params.count; i++)
        ND_TRY(check_parameter(m, directory, &m->params.list[i]));
    for (int f = 0; f < m->file_count; f++)
        for (size_t i = 0; i < m->files[f].tensors.count; i++) {
            const nd_safetensors_tensor *t = &m->files[f].tensors.tensors[i];
            const nd_hf_file *first = NULL;
            ND_FAIL_IF(
                !is_parameter(m, t->name) && !is_redundant(m, t->name), ND_EDATA,
                "%s: holds %.80s, which the graph that config.json describes does not have here",
                m->files[f].path, t->name);
            ND_FAIL_IF(find(m, t->name, &first) != t, ND_EDATA,
                       "%s: holds %.80s, and so does %s; remove the file that is of another model",
                       m->files[f].path, t->name, first->path);
        }
    return check_tied_head(m);
}

static nd_status open_parts(const char *directory, nd_hf_model *m)
{
    char path[PATH_MAX];
    ND_TRY(join_path(path, directory, "config.json"));
    ND_TRY(nd_hf_config_read(path, &m->config, &m->epsilon));
    ND_TRY(open_files(m, directory));
    ND_FAIL_IF(m->file_count == 0, ND_EDATA, "%s: its index names no file", directory);
    ND_TRY(read_metadata(m));
    m->model = nd_model_config_from(&m->config);
    ND_TRY(nd_params_create(&m->model, &m->params));
    return check_tensors(m, directory);
}

nd_status nd_hf_model_open(const char *directory, const nd_config *defaults, nd_hf_model *m)
{
    memset(m, 0, sizeof *m);
    m->config = *defaults;
    const nd_status status = open_parts(directory, m);
    if (status != ND_OK)
        nd_hf_model_close(m);
    return status;
}

void nd_hf_model_close(nd_hf_model *m)
{
    for (int i = 0; i < m->file_count; i++) {
        nd_safetensors_free(&m->files[i].tensors);
        nd_mapped_file_close(&m->files[i].mapped);
    }
    free(m->files);
    nd_params_destroy(&m->params);
    json_decref(m->scales);
    memset(m, 0, sizeof *m);
}

nd_status nd_hf_model_read(const nd_hf_model *m, int64_t index, float *values)
{
    const nd_param *p = &m->params.list[index];
    char name[ND_HF_NAME_MAX];
    const nd_hf_file *file = NULL;
    nd_hf_name(p, name);
    const nd_safetensors_tensor *t = find(m, name, &file);
    for (int64_t r = 0; r < p->rows; r++) {
        float *row = values + nd_hf_row(&m->model, p, r) * p->cols;
        ND_TRY(nd_safetensors_floats(t, r * p->cols, p->cols, row));
        for (int64_t i = 0; i < p->cols; i++)
            ND_FAIL_IF(!isfinite(row[i]), ND_EDATA, "%s: %s holds %g at [%lld, %lld]", file->path,
                       name, (double)row[i], (long long)r, (long long)i);
    }
    return ND_OK;
}

float nd_hf_model_scale(const nd_hf_model *m, int64_t index)
{
    char name[ND_HF_NAME_MAX];
    nd_hf_name(&m->params.list[index], name);
    return (float)json_number_value(json_object_get(m->scales, name));
}
