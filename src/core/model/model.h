/* The forward and backward pass of a micro-batch. Owners hold masters and optimizer state. */
#pragma once

#include "core/model/model_state.h"

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

/* The loss of the first `sequences` of `tokens` [micro_batch, seq_length + 1] (host), forward
 * only. */
nd_status nd_model_evaluate(nd_model *model, const int32_t *tokens, int64_t sequences,
                            nd_loss *loss);

/* Loss, and gradients of gradient_scale * total: nd_model_upload, nd_model_pass and
 * nd_model_read_losses in one call. */
nd_status nd_model_train(nd_model *model, const int32_t *tokens, float gradient_scale,
                         nd_model_gradients gradients, nd_gradients_ready ready, nd_loss *loss);

/* Uploads the tokens of the next pass, which may be overwritten when this returns. */
nd_status nd_model_upload(nd_model *model, const int32_t *tokens);

/* Forward and backward pass. Losses are left in model->sums, so that the host does not wait, except
 * with filtering, which chooses tokens by their losses. *kept: as in nd_loss. */
nd_status nd_model_pass(nd_model *model, float gradient_scale, nd_model_gradients gradients,
                        nd_gradients_ready ready, int64_t *kept);

/* nd_model_pass in two parts: up to where the head's gradients are done and the losses are in
 * model->sums; then the rest, for the tokens in *part. */
nd_status nd_model_pass_begin(nd_model *model, float gradient_scale,
                              const nd_model_gradients *gradients, nd_backward_rows *part,
                              int64_t *kept);
nd_status nd_model_pass_finish(nd_model *model, const nd_model_gradients *gradients,
                               nd_gradients_ready ready, const nd_backward_rows *part);

/* Sets losses[j].nll and .total from row j of `sums`: copies of model->sums after passes with the
 * same offset weights. One download. */
nd_status nd_model_read_losses(nd_model *model, nd_cview sums, nd_loss *losses);

/* Sets the weights of the tokens predicted after the next one for the passes that follow: offset j
 * of nd_cross_entropy_params, 1 <= j < tokens predicted ahead. They are 0 until set. */
void nd_model_set_offset_weights(nd_model *model, const float *weights);

/* Turns Collider's filter on or off; a model that has it starts with it on. */
static inline void nd_model_set_filtering(nd_model *model, bool filtering)
{
    model->filtering = filtering && model->config.collider;
}

/* What Collider's choice in the next pass depends on besides the losses. */
static inline void nd_model_set_draw(nd_model *model, nd_collider_draw draw)
{
    model->collider.draw = draw;
}
