/* The forms of multi-token prediction that have parameters, used in training only.
 *
 * separate: a head [vocab, d] for each further token, on the output of the final norm
 * (arXiv:2404.19737). sequential: a block for each further token, which predicts token t+1+k from
 * the state that predicted token t+k and the embedding of token t+k, through the model's own head
 * (DeepSeek-V3, arXiv:2412.19437, section 2.2):
 *   x^k[t] = block_k(P_k norm(x^(k-1)[t]) + Q_k norm(embedding(token[t+k])))
 * where x^0 is the last layer's output and the two ternary projections P and Q are the halves of
 * the paper's one. Heads run one after another in one buffer of logits. The form without
 * parameters, in which one row of logits predicts all tokens, is cross_entropy with several
 * targets. */
#pragma once

#include "core/model/model_state.h"

/* Uploads target `offset` of the first `count` positions to model->targets. */
nd_status nd_mtp_upload_targets(nd_model *model, int64_t count, int offset);

/* sequential: the blocks' forward pass, after the model's. */
nd_status nd_mtp_forward(nd_model *model);

/* separate: adds to part->dx_final and to the heads' gradients; model->sums[2 + k] receives the sum
 * of head k's losses. */
nd_status nd_mtp_train_heads(nd_model *model, const nd_backward_rows *part, float gradient_scale,
                             const nd_model_gradients *gradients);

/* sequential: adds to part->dx and to the gradients of the blocks, the head and the embedding;
 * losses as above. */
nd_status nd_mtp_train_blocks(nd_model *model, const nd_backward_rows *part, float gradient_scale,
                              const nd_model_gradients *gradients);

/* How many extra heads run: all up to the last one whose config->loss.offset_weight is not 0. */
int64_t nd_mtp_active_heads(const nd_model_config *config);

/* Passes have gradients of parameters [0, this): those of heads that do not run come last. They are
 * neither written nor announced, nor are they reduced or updated. */
int64_t nd_mtp_trained_params(const nd_model *model);

/* *total += the weighted losses of these heads, from `sums`, a copy of model->sums. */
void nd_mtp_add_losses(const nd_model *model, const double *sums, double *total);
