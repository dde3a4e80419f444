/* What the model needs of the configuration, with derived sizes. */
#pragma once

#include "core/backend/backend.h"
#include "core/config/config.h"

/* Which tokens Collider keeps (core/model/collider.h). */
typedef struct nd_collider_params {
    nd_collider_rule rule;
    double threshold; /* loss, excess: importance in [0, 1] below which a token may be filtered */
    double sparsity;  /* part that is filtered: exactly with sample, at most with the others */
    uint64_t seed;    /* sample */
} nd_collider_params;

/* What the backward pass computes again, of every layer but the last. Each keeps less than the one
 * before. */
typedef enum nd_recompute {
    ND_RECOMPUTE_NOTHING,
    ND_RECOMPUTE_FFN,      /* gate and up */
    ND_RECOMPUTE_LAYER,    /* all but the layer's input and its attention output */
    ND_RECOMPUTE_ATTENTION /* all but the layer's input */
} nd_recompute;

typedef struct nd_model_config {
    nd_arch arch;
    int64_t hidden_dim, num_layers, num_heads, num_kv_heads, head_dim, ffn_dim, vocab_size;
    int64_t group_size; /* 0: one ternary scale a matrix */
    bool tied;          /* the head is the token embedding */
    double rope_base;

    nd_dtype compute;      /* of activations and dense weights: f32 or bf16; f64 in checks */
    bool ternary;          /* false: projections are dense, for gradient checks */
    bool activation_quant; /* false: projections see unquantized activations */
    bool int8_gradients;   /* ternary backward products with gradients in 8 bits */
    bool on_device;        /* more rows of logits are computed at once than in host memory */
    nd_recompute recompute;
    bool pack_ternary_weights; /* codes are kept in 2 bits and unpacked for each product */
    bool collider;             /* the backward pass is over some of the tokens */
    nd_collider_params collider_params;
    nd_mtp_form mtp_form;         /* of the tokens predicted after the next one */
    int mtp_tokens;               /* predicted ahead, the next one included; 0 is 1 */
    int64_t micro_batch;          /* sequences computed at once */
    int64_t seq_length;           /* tokens of each */
    nd_cross_entropy_params loss; /* gradient_scale and offset weights are set per call */
} nd_model_config;

/* From a checked configuration: ternary, with quantized activations and its loss keys. */
nd_model_config nd_model_config_from(const nd_config *config);

/* Further tokens with own parameters: heads or blocks of the separate and sequential forms. */
static inline int nd_model_extra_heads(const nd_model_config *config)
{
    return config->mtp_form == ND_MTP_SHARED || config->mtp_tokens < 2 ? 0 : config->mtp_tokens - 1;
}

/* The configuration of the model after training, which has no extra heads. */
nd_model_config nd_model_config_without_extra_heads(nd_model_config config);

/* Columns of the [out, groups] scales of a ternary matrix with `inputs` columns; 0: one scale. */
static inline int64_t nd_model_scale_groups(const nd_model_config *config, int64_t inputs)
{
    return config->group_size > 0 ? inputs / config->group_size : 0;
}
