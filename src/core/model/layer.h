/* One transformer layer, forward and backward (docs/model.md has the formulas). */
#pragma once

#include "core/base/arena.h"
#include "core/model/linear.h"
#include "core/model/params.h"

/* A layer's activations for its backward pass; t tokens, d = hidden_dim, f = ffn_dim, h heads. */
typedef struct nd_layer_activations {
    nd_view x;        /* [t, d] input: the residual stream */
    nd_view q, k, v;  /* [t, h*head_dim], [t, kv_heads*head_dim], after rope */
    nd_view o, lse;   /* [t, h*head_dim], [t, h] */
    nd_view x_mid;    /* [t, d] after attention */
    nd_view gate, up; /* [t, f]; the backward pass overwrites them */
} nd_layer_activations;

/* Scratch shared by all layers. The inputs of projections are a fifth of what a layer would keep,
 * and computing them again for the backward pass takes 2 % of a step. */
typedef struct nd_layer_scratch {
    nd_linear_input input; /* of one projection after another: [t, max(d, h*head_dim, f)] */
    nd_view hidden;        /* [t, d] */
    size_t idle;           /* the byte of the arena where what only layers use begins */
    nd_view wide;          /* [t, f]; training: memory of the next four too */
    nd_view heads;         /* [t, h*head_dim] */
    nd_view dq, dk, dv;    /* as q, k, v */
    nd_view weight;        /* [max out*in] dequantized weight; only without activation_quant */
} nd_layer_scratch;

/* Positions of one call: `sequences` of `query_len` tokens from position `start` on. In generation
 * `keys` and `values` are the cache of all positions so far, whose last rows are the layer's k and
 * v; in training they are the layer's k and v. */
typedef struct nd_layer_span {
    int64_t sequences, query_len, start;
    nd_view keys, values;
} nd_layer_span;

/* Weights or gradients of a layer, by nd_layer_param; zero for sub-norms that do not exist. */
typedef struct nd_layer_weights {
    const nd_weight *w[ND_LAYER_PARAM_COUNT];
} nd_layer_weights;

typedef struct nd_layer_gradients {
    nd_view dw[ND_LAYER_PARAM_COUNT];
} nd_layer_gradients;

/* Reserves a layer's activations of `tokens` tokens, or only those that nd_layer_recompute needs
 * and leaves the others as they are; the scratch of all layers. Errors: those of nd_arena_reserve.
 */
nd_status nd_layer_activations_reserve(nd_arena *arena, const nd_model_config *config,
                                       int64_t tokens, nd_layer_activations *acts);
nd_status nd_layer_checkpoint_reserve(nd_arena *arena, const nd_model_config *config,
                                      int64_t tokens, nd_layer_activations *acts);

/* Whether the backward pass of all layers but the last recomputes activations. */
static inline bool nd_layer_recomputes(const nd_model_config *config)
{
    return config->recompute != ND_RECOMPUTE_NOTHING;
}

nd_status nd_layer_scratch_reserve(nd_arena *arena, const nd_model_config *config, int64_t tokens,
                                   bool training, nd_layer_scratch *scratch);

/* What one call works on. It owns nothing. */
typedef struct nd_layer_pass {
    nd_backend *backend;
    const nd_model_config *config;
    nd_layer_weights weights;
    const nd_layer_activations *acts;
    const nd_layer_scratch *scratch;
    nd_layer_span span;
    nd_cview rows; /* i32 [1, t'] as in gather_rows: tokens of the backward pass; data NULL: all */
} nd_layer_pass;

/* Computes the layer from acts->x into acts and `x_next` [t, d], for all rows. */
nd_status nd_layer_forward(const nd_layer_pass *pass, nd_view x_next);

/* Recomputes from those of nd_layer_checkpoint_reserve the other activations that the backward pass
 * reads, with `rows` for these tokens only. `part` receives all as views of these tokens, and the
 * keys and values of all. With `rows`, those that were kept are moved to the front. */
nd_status nd_layer_recompute(const nd_layer_pass *pass, nd_layer_activations *part);

/* The backward pass of a layer is that of its feed-forward half, then that of its attention half.
 * dx [t, d] holds d loss / d x_next, then d loss / d x_mid, and becomes d loss / d x. Matrix
 * gradients become beta dw + ...; norm gradients are added to. Overwrites acts->gate and acts->up.
 * With `rows`, dx is [t', d], and everything in acts but keys and values has t' rows. */
nd_status nd_layer_ffn_backward(const nd_layer_pass *pass, nd_view dx,
                                const nd_layer_gradients *gradients, float beta);
nd_status nd_layer_attention_backward(const nd_layer_pass *pass, nd_view dx,
                                      const nd_layer_gradients *gradients, float beta);

/* Moves the rows of a backward pass to the front of all activations but keys and values. `part`
 * receives views of these t rows. rows: i32 [1, t] as in gather_rows. */
nd_status nd_layer_compact(nd_backend *b, const nd_layer_activations *acts, nd_cview rows,
                           nd_layer_activations *part);

/* The same for `count` views. */
nd_status nd_layer_compact_rows(nd_backend *b, nd_view *const *views, int count, nd_cview rows);
