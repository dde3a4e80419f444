/* The head and the loss, a chunk of rows at a time, so that the logits of all rows need not
 * exist. */
#pragma once

#include "core/backend/backend.h"

typedef struct nd_head_pass {
    nd_cview x;                   /* [t, d] after the final norm */
    nd_cview head;                /* [vocab, d] */
    nd_cview targets;             /* i32 [t, offsets] */
    nd_cross_entropy_params loss; /* gradient_scale is not read without dx */
    nd_view kept;       /* [t, pieces] all rows' logits; data NULL: chunks share `logits` */
    bool computed;      /* `kept` already holds the logits, which dx may overwrite */
    nd_view dlogits;    /* [chunk, pieces] for gradients of logits; data NULL: in their place */
    nd_view nll, total; /* [t, 1] */
    nd_view norm;       /* [t, 1] of the error of the prediction; data NULL: not wanted */
    nd_cview weight;    /* [t, 1] factors of the rows' gradients; data NULL: 1 */
    nd_view dx;         /* [t, d]; data NULL: the loss alone */
    float dx_beta;      /* dx = dx_beta dx + ... */
    nd_view dhead;      /* [vocab, d] */
    float dhead_beta;
} nd_head_pass;

/* Computes losses and, where `dx` is wanted, gradients. `logits` [chunk, pieces] is overwritten.
 * Rows of the head beyond `pieces` are padding: no softmax has them, and their gradient is 0. */
nd_status nd_head_run(nd_backend *b, nd_view logits, const nd_head_pass *pass);
