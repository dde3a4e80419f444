/* Counts the operations of the matrix products of a training pass, multiplications and additions.
 * The backward pass of a product takes twice those of its forward pass. */
#pragma once

#include "core/model/model_config.h"

/* Per token, in the order of nd_model_pass. */
typedef struct nd_pass_operations {
    double start; /* before the last layer's backward pass: all forward passes, and the heads */
    double layer; /* the backward pass of one layer */
    double ffn;   /* of it, up to the gradients of its feed-forward half */
    double all;
} nd_pass_operations;

/* Counts operations with `extra_heads` active heads or blocks of multi-token prediction and the
 * fraction `kept` of the tokens in the backward pass. Attention is causal: half of all scores. What
 * is recomputed counts, too. */
nd_pass_operations nd_pass_operations_of(const nd_model_config *config, int64_t extra_heads,
                                         double kept);

/* Operations of the model itself: what a step must compute, without recomputation. */
double nd_model_operations(nd_model_config config, int64_t extra_heads, double kept);
