/* The model as a replica holds it: codes, scales and dense weights, and one micro-batch's forward and
 * backward pass. Masters and optimizer state live elsewhere, with their owners. */
#ifndef ND_CORE_MODEL_MODEL_H
#define ND_CORE_MODEL_MODEL_H

#include "core/base/arena.h"
#include "core/model/collider.h"
#include "core/model/layer.h"
#include "core/model/mtp.h"
#include "core/model/params.h"

typedef struct nd_model {
    nd_model_config config;
    nd_params params;
    nd_backend *backend; /* not owned */
    nd_weight *weights;  /* [params.count], in the arena of nd_model_reserve_weights */

    /* Activations of one micro-batch, in the arena of nd_model_reserve_activations. */
    int64_t tokens;               /* micro_batch * seq_length */
    nd_layer_activations *layers; /* [num_layers] */
    nd_layer_scratch scratch;
    nd_view inputs, targets;  /* i32 [1, tokens], [tokens, offsets] */
    int32_t *host_inputs;     /* [tokens] */
    int32_t *host_targets;    /* [tokens, tokens predicted ahead] */
    nd_view x_last;           /* [tokens, d] output of the last layer */
    nd_view x_final, final_r; /* [tokens, d] after the final norm, [tokens, 1] */
    nd_view dx;               /* [tokens, d] */
    nd_view logits;           /* [chunk, pieces] */
    nd_view nll, total;       /* [tokens, 1] */
    nd_view sums; /* f64 [1, nd_model_loss_sums]: of nll, of total, of the totals of extra heads */
    nd_collider collider; /* with config.collider */
    bool filtering;
    nd_mtp mtp; /* with extra heads */
} nd_model;

/* Loss of one micro-batch, summed over its tokens (nats). */
typedef struct nd_loss {
    double nll;   /* next-token cross-entropy */
    double total; /* with smoothing, z-loss and entropy terms */
    int64_t tokens;
    int64_t kept; /* tokens that took part in the backward pass */
} nd_loss;

/* Called during the backward pass when the gradients of parameters [first, first + count) are
 * complete; their views may be reused for later layers' gradients afterwards. */
typedef struct nd_gradients_ready {
    nd_status (*call)(void *context, int64_t first, int64_t count);
    void *context;
} nd_gradients_ready;

/* Where gradients go. views[i]: f32 (f64 in checks) [rows, cols] of parameter i, written, or added to
 * when the flag of its kind says so. Views of different layers may share memory when the layers' are
 * written and nd_gradients_ready takes the values away. */
typedef struct nd_model_gradients {
    const nd_view *views;   /* [params.count] */
    bool accumulate_layers; /* parameters of layers */
    bool accumulate_others; /* embedding, final norm, head */
} nd_model_gradients;

/* Builds the parameter table. Takes no memory for weights or activations. */
nd_status nd_model_create(const nd_model_config *config, nd_backend *backend, nd_model **model);
void nd_model_destroy(nd_model *model);

/* Lay out weights (category "codes") and activations in arenas; run on a sizing arena, commit, run again. */
nd_status nd_model_reserve_weights(nd_model *model, nd_arena *arena);
nd_status nd_model_reserve_activations(nd_model *model, nd_arena *arena, bool training);

/* Sets weight i from its master [rows, cols] (f32, bf16 or f64, backend memory): ternarises
 * projections, converts the rest. */
nd_status nd_model_load_weight(nd_model *model, int64_t index, nd_cview master);

/* Loss of the first `sequences` of micro_batch sequences of seq_length + 1 tokens (host memory). The
 * forward pass of eval. */
nd_status nd_model_evaluate(nd_model *model, const int32_t *tokens, int64_t sequences,
                            nd_loss *loss);

/* Loss and gradients. The gradient is that of gradient_scale * total. Consists of the three below. */
nd_status nd_model_train(nd_model *model, const int32_t *tokens, float gradient_scale,
                         nd_model_gradients gradients, nd_gradients_ready ready, nd_loss *loss);

/* The tokens of the next pass, which may be overwritten when this returns. */
nd_status nd_model_upload(nd_model *model, const int32_t *tokens);

/* Forward and backward pass. Losses are left in model->sums, so that the host waits for nothing, except
 * with filtering, which chooses tokens by their losses. *kept: as in nd_loss. */
nd_status nd_model_pass(nd_model *model, float gradient_scale, nd_model_gradients gradients,
                        nd_gradients_ready ready, int64_t *kept);

/* losses[j].nll and .total from row j of `sums`: copies of model->sums after passes with the same weights
 * of offsets. One download. */
nd_status nd_model_read_losses(nd_model *model, nd_cview sums, nd_loss *losses);

/* Columns of model->sums. */
int64_t nd_model_loss_sums(const nd_model *model);

/* The weights of the tokens predicted after the next one, for the steps that follow: offset j of
 * nd_cross_entropy_params, 1 <= j < tokens predicted ahead. All zero until set. */
void nd_model_set_offset_weights(nd_model *model, const float *weights);

/* Whether Collider filters tokens from here on; a model that has it begins with it. */
void nd_model_set_filtering(nd_model *model, bool filtering);

/* Rows of logits computed at once: full logits never exist. */
int64_t nd_model_logit_rows(const nd_model_config *config);

#endif
