/* Loads a model from a checkpoint for commands that do not train. */
#pragma once

#include "core/config/config.h"
#include "core/model/model.h"
#include "data/tokenizer.h"
#include "train/checkpoint/checkpoint.h"

typedef struct nd_load_options {
    const char *checkpoint; /* a checkpoint, a run, or a directory of checkpoints */
    const char *precision;  /* "fp32", "bf16"; NULL: the configuration's */
    const char *target; /* "auto", "cpu", "cuda"; NULL: the configuration's, with cuda as auto: what
                              was trained on a GPU is read without one */
    int64_t threads;    /* 0: the configuration's */
    bool reference_only;   /* every op in the double-accumulating reference */
    bool activation_quant; /* false: activations are not quantised */
    bool extra_heads;      /* those of multi-token prediction too */
    int64_t micro_batch;   /* 0: the configuration's */
    int64_t seq_length;    /* 0: the configuration's */
} nd_load_options;

typedef struct nd_loaded_model {
    nd_config config;
    char directory[ND_CHECKPOINT_PATH_MAX]; /* the checkpoint itself */
    int64_t step;
    nd_backend *backend;
    nd_arena weights;
    nd_model *model;         /* weights loaded; activations not taken */
    nd_tokenizer *tokenizer; /* NULL when the checkpoint has none */
} nd_loaded_model;

/* Collective. Errors: ND_ECHECKPOINT naming the file or tensor, or a rank that reaches another checkpoint
 * than rank 0. On an error nothing is to be released. */
nd_status nd_load_model(const nd_load_options *options, nd_comm *comm, nd_loaded_model *loaded);
void nd_loaded_model_release(nd_loaded_model *loaded);
