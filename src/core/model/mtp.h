/* Multi-token prediction with parameters of its own, used in training and left behind afterwards.
 *
 * separate: a head [vocab, d] for each further token, on the output of the final norm
 * (arXiv:2404.19737). sequential: a block for each further token, which predicts token t+1+k from the
 * state that predicted token t+k and the embedding of token t+k, through the model's own head
 * (DeepSeek-V3, arXiv:2412.19437, section 2.2):
 *   x^k[t] = block_k(P_k norm(x^(k-1)[t]) + Q_k norm(embedding(token[t+k]))), x^0 = the last layer's output
 * where the two ternary projections P and Q are the halves of that paper's one.
 * Heads run one after another, in one buffer of logits. The parameter-free form, in which one row of
 * logits predicts all tokens, is cross_entropy with several targets. */
#ifndef ND_CORE_MODEL_MTP_H
#define ND_CORE_MODEL_MTP_H

#include "core/model/layer.h"

struct nd_model;
struct nd_model_gradients;

typedef struct nd_mtp_block {
    nd_view inputs;    /* i32 [1, tokens] */
    nd_view embedding; /* [tokens, d] */
    nd_view hidden_r, embedding_r;
    nd_linear_input hidden_in, embedding_in;
    nd_layer_activations acts;
    nd_view out; /* [tokens, d] */
} nd_mtp_block;

typedef struct nd_mtp {
    nd_mtp_block *blocks; /* [extra heads] */
    nd_view dx[2];        /* [tokens, d] */
    int32_t *column;      /* [tokens], host memory */
} nd_mtp;

/* What a backward pass works on: all rows, or those of the tokens that take part. */
typedef struct nd_backward_rows {
    nd_cview rows; /* data NULL: all */
    int64_t count;
    int64_t early;  /* the first rows, whose logits are to be computed again */
    nd_view logits; /* of the others: [count - early, vocab] */
    nd_view inputs, x_last, final_r, x_final;
    nd_view dx_final, dx;
} nd_backward_rows;

/* Makes model->mtp from model->config, for forms that have heads of their own. Errors: ND_ENOMEM. */
nd_status nd_mtp_create(struct nd_model *model);
void nd_mtp_destroy(struct nd_model *model);

/* Takes its activations: run on a sizing arena, commit, run again. Errors: nd_arena_reserve's. */
nd_status nd_mtp_reserve(struct nd_model *model, nd_arena *arena);

/* Uploads target `offset` of the first `count` positions to model->targets. */
nd_status nd_mtp_upload_targets(struct nd_model *model, int64_t count, int offset);

/* sequential: computes the blocks from the model's forward pass. */
nd_status nd_mtp_forward(struct nd_model *model);

/* separate: adds the heads' part to part->dx_final and their gradients; the sum of head k's losses goes to
 * model->sums[2 + k]. */
nd_status nd_mtp_train_heads(struct nd_model *model, const nd_backward_rows *part,
                             float gradient_scale, const struct nd_model_gradients *gradients);

/* sequential: adds the blocks' part to part->dx, their gradients and those of the head and the embedding;
 * losses as above. */
nd_status nd_mtp_train_blocks(struct nd_model *model, const nd_backward_rows *part,
                              float gradient_scale, const struct nd_model_gradients *gradients);

/* Extra heads that run: those from the first on which config->loss.offset_weight still wants. */
int64_t nd_mtp_active_heads(const nd_model_config *config);

/* *total += the weighted losses of the heads that run, from those sums. */
void nd_mtp_add_losses(const struct nd_model *model, const double *sums, double *total);

#endif
