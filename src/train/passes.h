/* Forward and backward passes of a rank's micro-batches, with gradients going to the run's reducer. */
#pragma once

#include "train/run.h"

/* Lays out its part of the category "gradients"; run on a sizing arena, commit, run again. */
nd_status nd_passes_reserve(nd_run *run, nd_arena *arena);

/* All micro-batches of this rank (`tokens` [local_micro_batches][micro_batch][seq_length + 1], host memory),
 * up to gradients in the reducer; losses[j] of micro-batch j. Collective with overlap. */
nd_status nd_passes_run(nd_run *run, const int32_t *tokens, nd_loss *losses);

/* The same for immediate updates, where the only micro-batch's loss is needed before the backward pass: up
 * to the loss, and from there, with `layer_ready` called for parameters whose gradients are in the reducer. */
typedef struct nd_split_pass {
    nd_gradient_leaf leaf;
    nd_backward_rows rows;
} nd_split_pass;
nd_status nd_passes_forward(nd_run *run, const int32_t *tokens, nd_split_pass *pass, nd_loss *loss);
nd_status nd_passes_backward(nd_run *run, const nd_split_pass *pass,
                             nd_gradients_ready layer_ready);
