/* A model as transformers stores it: a directory with config.json and model.safetensors, or with
 * shards and model.safetensors.index.json. */
#pragma once

#include "core/config/config.h"
#include "core/model/params.h"
#include "exchange/mapped_file.h"
#include "exchange/safetensors_read.h"

#include <limits.h>

typedef struct nd_hf_file {
    char path[PATH_MAX];
    nd_mapped_file mapped;
    nd_safetensors tensors;
} nd_hf_file;

typedef struct nd_hf_model {
    nd_config config; /* [model] from config.json */
    double epsilon;   /* of its norms */
    nd_model_config model;
    nd_params params;
    nd_hf_file *files;
    int file_count;
    bool ternary;   /* exported by this program: projections are codes times scales */
    json_t *scales; /* if ternary: name -> exact scale; NULL when not stated */
} nd_hf_model;

/* Opens all files and checks that they hold every parameter with its shape, and nothing else but
 * copies (a tied head) and rotary frequencies. The caller closes the model, unless it failed.
 * Errors: ND_EDATA, ND_ECONFIG, ND_ENOMEM. */
nd_status nd_hf_model_open(const char *directory, const nd_config *defaults, nd_hf_model *model);
void nd_hf_model_close(nd_hf_model *model);

/* Reads parameter `index` [rows, cols], in this program's order of rows. Errors: ND_EDATA, also if
 * a value is not finite. */
nd_status nd_hf_model_read(const nd_hf_model *model, int64_t index, float *values);

/* The exact scale of a projection; 0 when the files do not have it. */
float nd_hf_model_scale(const nd_hf_model *model, int64_t index);
