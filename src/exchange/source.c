#include "exchange/source.h"

#include "core/base/durable_file.h"
#include "core/base/float_formats.h"
#include "train/checkpoint/load_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static nd_status open_tokenizer(nd_source *s)
{
    char path[ND_CHECKPOINT_PATH_MAX + 40];
    snprintf(path, sizeof path, "%s/tokenizer.model", s->directory);
    ND_TRY(nd_read_whole_file(path, ND_ECHECKPOINT, &s->tokenizer, &s->tokenizer_bytes));
    ND_TRY(nd_model_file_parse(s->tokenizer, s->tokenizer_bytes, path, &s->vocabulary));
    s->has_tokenizer = true;
    return ND_CHECK(s->vocabulary.count <= s->model.vocab_size, ND_ECHECKPOINT,
                    "%s: %d pieces, but the model has a vocabulary of %lld", path,
                    s->vocabulary.count, (long long)s->model.vocab_size);
}

static nd_status open_parts(nd_source *s)
{
    char path[ND_CHECKPOINT_PATH_MAX + 40];
    const nd_cpu_backend_options options = {.threads = 0};
    snprintf(path, sizeof path, "%s/config.ini", s->directory);
    nd_config_defaults(&s->config);
    ND_TRY(nd_config_read_file(&s->config, path));
    nd_config_leave_machine(&s->config);
    ND_TRY(nd_config_check_model(&s->config));
    s->model = nd_model_config_without_extra_heads(nd_model_config_from(&s->config));
    ND_TRY(nd_params_create(&s->model, &s->params));
    ND_TRY(nd_cpu_backend_create(&options, &s->backend));
    return s->checkpoint.has_tokenizer ? open_tokenizer(s) : ND_OK;
}

nd_status nd_source_open(const char *path, nd_source *s)
{
    nd_log warnings = {.terminal = stderr};
    char directory[ND_CHECKPOINT_PATH_MAX];
    memset(s, 0, sizeof *s);
    nd_status status = nd_checkpoint_resolve(path, &warnings, s->directory);
    ND_IF_OK(nd_checkpoint_open(s->directory, true, &s->checkpoint));
    ND_IF_OK(open_parts(s));
    if (status != ND_OK) {
        strcpy(directory, s->directory);
        nd_source_close(s);
        strcpy(s->directory, directory);
    }
    return status;
}

void nd_source_close(nd_source *s)
{
    if (s->has_tokenizer)
        nd_model_file_free(&s->vocabulary);
    free(s->tokenizer);
    nd_backend_destroy(s->backend);
    nd_params_destroy(&s->params);
    nd_checkpoint_close(&s->checkpoint);
    memset(s, 0, sizeof *s);
}

/* Reads the master as floats. */
static nd_status read_values(const nd_source *s, const nd_param *p, float *values)
{
    const int64_t index = nd_checkpoint_find(&s->checkpoint, p->name, "master");
    ND_FAIL_IF(index < 0, ND_ECHECKPOINT, "%s: holds no tensor %s", s->directory, p->name);
    const nd_checkpoint_tensor *t = &s->checkpoint.tensors[index];
    const int64_t count = p->rows * p->cols;
    ND_FAIL_IF(t->rows != p->rows || t->cols != p->cols ||
                   (t->dtype != ND_F32 && t->dtype != ND_BF16),
               ND_ECHECKPOINT,
               "%s: %s is %s [%lld, %lld], its configuration says [%lld, %lld] in f32 or bf16",
               s->directory, p->name, nd_dtype_name(t->dtype), (long long)t->rows,
               (long long)t->cols, (long long)p->rows, (long long)p->cols);
    /* bf16 is read into the upper half of `values` and widened in place from the front. */
    const size_t width = nd_dtype_size(t->dtype);
    char *upper = (char *)values + (size_t)count * (sizeof *values - width);
    ND_TRY(nd_checkpoint_read(&s->checkpoint, index, upper));
    for (int64_t i = 0; t->dtype == ND_BF16 && i < count; i++) {
        uint16_t half;
        memcpy(&half, upper + 2 * i, sizeof half);
        values[i] = nd_bf16_to_float(half);
    }
    for (int64_t i = 0; i < count; i++)
        ND_FAIL_IF(!isfinite(values[i]), ND_ECHECKPOINT,
                   "%s: %s holds %g at [%lld, %lld]; it cannot be exported", s->directory, p->name,
                   (double)values[i], (long long)(i / p->cols), (long long)(i % p->cols));
    return ND_OK;
}

static nd_status ternarize(const nd_source *s, nd_source_tensor *t)
{
    const nd_param *p = t->param;
    nd_backend *b = s->backend;
    const int64_t scale_rows = t->groups ? p->rows : 1, scale_cols = t->groups ? t->groups : 1;
    ND_TRY(b->ops.ternarize(b, nd_view_of(t->codes, ND_I8, p->rows, p->cols),
                            nd_view_of(t->scales, ND_F32, scale_rows, scale_cols),
                            nd_cview_of(t->values, ND_F32, p->rows, p->cols)));
    ND_TRY(b->ops.synchronize(b));
    for (int64_t i = 0; i < scale_rows * scale_cols; i++)
        ND_FAIL_IF(!isfinite(t->scales[i]), ND_ECHECKPOINT,
                   "%s: the mean of |%s| is beyond fp16, the type of its scale", s->directory,
                   p->name);
    return ND_OK;
}

nd_status nd_source_read(const nd_source *s, int64_t index, nd_source_tensor *t)
{
    const nd_param *p = &s->params.list[index];
    const size_t count = (size_t)(p->rows * p->cols);
    const bool ternary = p->role == ND_ROLE_TERNARY;
    *t = (nd_source_tensor){.param = p};
    t->groups = ternary ? nd_model_scale_groups(&s->model, p->cols) : 0;
    const size_t scales = !ternary ? 0 : t->groups ? (size_t)(p->rows * t->groups) : 1;
    t->memory = malloc((count + scales) * sizeof(float) + (ternary ? count : 0));
    ND_FAIL_IF(!t->memory, ND_ENOMEM, "no memory for %s", p->name);
    t->values = t->memory;
    ND_TRY(read_values(s, p, t->values));
    if (!ternary)
        return ND_OK;
    t->scales = t->values + count;
    t->codes = (int8_t *)(t->scales + scales);
    const nd_status status = ternarize(s, t);
    t->values = NULL;
    return status;
}

void nd_source_tensor_free(nd_source_tensor *t)
{
    free(t->memory);
    memset(t, 0, sizeof *t);
}

void nd_source_row(const nd_source_tensor *t, int64_t row, float *values)
{
    for (int64_t i = 0; i < t->param->cols; i++) {
        const int64_t at = row * t->param->cols + i;
        values[i] = t->values ? t->values[at] : (float)t->codes[at] * nd_source_scale(t, row, i);
    }
}
