/* Loads a model from a checkpoint for commands that do not train. */
#pragma once

#include "core/config/config.h"
#include "core/model/model.h"
#include "data/tokenizer/tokenizer.h"
#include "train/checkpoint/checkpoint.h"

typedef struct nd_load_options {
    const char *checkpoint; /* a checkpoint, a run, or a directory of checkpoints */
    const char *precision;  /* "fp32", "bf16"; NULL: as configured */
    /* "auto", "cpu", "cuda"; NULL: as configured, except that cuda becomes auto */
    const char *target;
    int64_t threads;       /* 0: a share of the cores */
    bool reference_only;   /* use the double-accumulating reference for every op */
    bool activation_quant; /* false: do not quantize activations */
    bool extra_heads;      /* also load those of multi-token prediction */
    int64_t micro_batch;   /* 0: as configured */
    int64_t seq_length;    /* 0: as configured */
} nd_load_options;

typedef struct nd_loaded_model {
    nd_config config;
    char directory[ND_CHECKPOINT_PATH_MAX]; /* of the checkpoint */
    int64_t step;
    nd_backend *backend;
    nd_arena weights;
    nd_model *model;         /* weights loaded, activations not reserved */
    nd_tokenizer *tokenizer; /* NULL when the checkpoint has none */
} nd_loaded_model;

/* Loads a model; the caller releases it, except after an error. Collective. Errors: ND_ECHECKPOINT
 * naming the file or tensor, or a rank that sees another checkpoint than rank 0. */
nd_status nd_load_model(const nd_load_options *options, nd_comm *comm, nd_loaded_model *loaded);
void nd_loaded_model_release(nd_loaded_model *loaded);
