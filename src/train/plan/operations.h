/* The operations of a training pass, counted: those of its products, a multiplication and an addition each.
 * The backward pass of a product takes twice those of the forward pass. */
#pragma once

#include "core/model/model_config.h"

/* Of one token, in the order of nd_model_pass. */
typedef struct nd_pass_operations {
    double start; /* until the last layer's backward pass: all forward, and the heads */
    double layer; /* a layer's backward pass */
    double all;
} nd_pass_operations;

/* `extra_heads` heads or blocks of multi-token prediction run; the share `kept` of the tokens takes part
 * in the backward pass. Attention is causal: half of all scores. With config->checkpointing what is
 * computed again counts; the model's own operations are those without. */
nd_pass_operations nd_pass_operations_of(const nd_model_config *config, int64_t extra_heads,
                                         double kept);

/* Those of the model: what a step must compute, checkpointing or not. */
double nd_model_operations(nd_model_config config, int64_t extra_heads, double kept);
