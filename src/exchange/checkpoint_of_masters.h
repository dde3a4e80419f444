/* A checkpoint of step 0 with masters and no optimizer state: the result of an import. */
#pragma once

#include "core/model/params.h"
#include "train/checkpoint/checkpoint.h"

/* Reads the values of parameter `index`, f32 [rows, cols]. */
typedef struct nd_masters {
    nd_status (*read)(void *context, int64_t index, float *values);
    void *context;
} nd_masters;

/* Writes DIRECTORY/step_00000000 with one file of tensors, the configuration and the tokenizer (may
 * be NULL), then makes `latest` point to it, as durably as train/checkpoint/checkpoint.h says.
 * Errors: ND_ECONFIG when DIRECTORY has checkpoints; ND_ECHECKPOINT, ND_EIO, and those of
 * `masters`. */
nd_status nd_checkpoint_of_masters(const char *directory, const nd_config *config,
                                   const nd_params *params, const nd_masters *masters,
                                   const void *tokenizer, size_t tokenizer_bytes);
