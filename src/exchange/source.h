/* The model in a checkpoint for an export: one tensor at a time, projections as the codes and
 * scales that a replica computes with. */
#pragma once

#include "core/model/params.h"
#include "data/tokenizer/model_file.h"
#include "train/checkpoint/checkpoint.h"

typedef struct nd_source {
    char directory[ND_CHECKPOINT_PATH_MAX]; /* of the checkpoint itself */
    nd_config config;
    nd_model_config model;
    nd_params params;
    nd_checkpoint checkpoint;
    nd_backend *backend; /* the CPU's: its memory is host memory */
    bool has_tokenizer;
    void *tokenizer; /* bytes of tokenizer.model */
    size_t tokenizer_bytes;
    nd_model_file vocabulary; /* of tokenizer.model */
} nd_source;

/* A parameter's values. Ternary: `codes` [rows, cols] and `scales`, fp16 values in f32, [rows,
 * groups], or a single one when groups is 0. Dense: `values` [rows, cols]. */
typedef struct nd_source_tensor {
    const nd_param *param;
    float *values;
    int8_t *codes;
    float *scales;
    int64_t groups;
    void *memory; /* of all of them */
} nd_source_tensor;

/* Opens a checkpoint, or a run's latest one, and checks every file. The caller closes it, unless
 * it failed; `directory` then says which it was, if it was found. Errors: ND_ECHECKPOINT,
 * ND_ENOMEM. */
nd_status nd_source_open(const char *path, nd_source *source);
void nd_source_close(nd_source *source);

/* Reads parameter `index`; the caller frees it, also when it failed. Errors: ND_ECHECKPOINT naming
 * the tensor. */
nd_status nd_source_read(const nd_source *source, int64_t index, nd_source_tensor *tensor);
void nd_source_tensor_free(nd_source_tensor *tensor);

/* The scale of the weight at [row, col]. */
static inline float nd_source_scale(const nd_source_tensor *t, int64_t row, int64_t col)
{
    return t->groups ? t->scales[row * t->groups + col / (t->param->cols / t->groups)]
                     : t->scales[0];
}

/* The weights of row `row` as floats [cols]. */
void nd_source_row(const nd_source_tensor *tensor, int64_t row, float *values);
