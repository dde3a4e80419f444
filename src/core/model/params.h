/* The parameters of a model: their names, shapes, roles and initial values. The order is that of
 * the forward pass and is the same everywhere (ownership, checkpoints, gradients). */
#pragma once

#include "core/model/model_config.h"

enum { ND_PARAM_NAME_MAX = 64 };

typedef enum nd_param_role {
    ND_ROLE_EMBEDDING, /* token_embd.weight, also the head when tied */
    ND_ROLE_HEAD,      /* output.weight */
    ND_ROLE_NORM,      /* [1, n] */
    ND_ROLE_TERNARY    /* a projection [out, in] */
} nd_param_role;

/* A layer's parameters in forward order. The two sub-norms exist in bitnet only. */
typedef enum nd_layer_param {
    ND_ATTN_NORM,
    ND_ATTN_Q,
    ND_ATTN_K,
    ND_ATTN_V,
    ND_ATTN_SUB_NORM,
    ND_ATTN_OUTPUT,
    ND_FFN_NORM,
    ND_FFN_GATE,
    ND_FFN_UP,
    ND_FFN_SUB_NORM,
    ND_FFN_DOWN,
    ND_LAYER_PARAM_COUNT
} nd_layer_param;

/* A block of the sequential form of multi-token prediction (core/model/mtp.h): the first four of
 * these, then a layer's parameters, then ND_MTP_OUTPUT_NORM. */
typedef enum nd_mtp_param {
    ND_MTP_HIDDEN_NORM,
    ND_MTP_HIDDEN_PROJ,
    ND_MTP_EMBEDDING_NORM,
    ND_MTP_EMBEDDING_PROJ,
    ND_MTP_OUTPUT_NORM,
    ND_MTP_PARAM_COUNT
} nd_mtp_param;

typedef struct nd_param {
    char name[ND_PARAM_NAME_MAX]; /* llama.cpp's GGUF name */
    nd_param_role role;
    int64_t layer; /* -1 outside the layers */
    int64_t rows, cols;
    float init_std; /* normal(0, init_std); norms start at 1 */
} nd_param;

typedef struct nd_params {
    nd_param *list;
    int64_t count;
    int64_t layers;
    int64_t per_layer; /* parameters of a layer: 11, or 9 without sub-norms */
    bool has_sub_norms;
    bool has_head;
    int64_t extra_heads;    /* of multi-token prediction, after all others */
    int64_t per_extra_head; /* parameters of one: a block's, or 1 */
} nd_params;

/* Lists the parameters of a checked configuration. Errors: ND_ENOMEM. */
nd_status nd_params_create(const nd_model_config *config, nd_params *params);
void nd_params_destroy(nd_params *params);

/* Index of a layer's parameter; -1 for a sub-norm that the graph does not have. */
int64_t nd_params_layer_index(const nd_params *params, int64_t layer, nd_layer_param which);
/* Of extra head `head`, counted from 0: the index of a parameter of its block, of one of its
 * block's layer, and of its first parameter (a separate head has only one). */
int64_t nd_params_mtp_index(const nd_params *params, int64_t head, nd_mtp_param which);
int64_t nd_params_mtp_layer_index(const nd_params *params, int64_t head, nd_layer_param which);
int64_t nd_params_mtp_first(const nd_params *params, int64_t head);
int64_t nd_params_embedding(const nd_params *params);   /* index of token_embd.weight */
int64_t nd_params_output_norm(const nd_params *params); /* index of output_norm.weight */
int64_t nd_params_head(const nd_params *params);        /* output.weight, or the tied embedding */
int64_t nd_params_find(const nd_params *params, const char *name); /* -1 when there is none */

/* Elements of the largest parameter of a role; 0 when there is none. */
int64_t nd_params_largest(const nd_params *params, nd_param_role role);

/* Total number of weights. */
int64_t nd_params_total(const nd_params *params);
int64_t nd_params_ternary(const nd_params *params); /* those in ternary matrices */

/* The memory of the views of layers [0, layers), which were reserved one after another. */
nd_view nd_params_layer_span(const nd_params *params, const nd_view *views, int64_t layers);

/* Initial values of elements [first, first + count), from the seed and the name alone. */
void nd_param_initialize(const nd_param *param, uint64_t seed, int64_t first, int64_t count,
                         float *values);
