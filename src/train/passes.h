/* Forward and backward passes of a rank's micro-batches; gradients go to the run's reducer. */
#pragma once

#include "train/run/run.h"

/* Lays out the passes' part of the category "gradients": run it on a sizing arena, commit, run it
 * again. Errors: those of nd_arena_reserve. */
nd_status nd_passes_reserve(nd_run *run, nd_arena *arena);

/* Runs all micro-batches of this rank (`tokens` [local_micro_batches][micro_batch][seq_length + 1]
 * in host memory), adding gradients to the reducer; losses[j] is micro-batch j's. Collective with
 * overlap. */
nd_status nd_passes_run(nd_run *run, const int32_t *tokens, nd_loss *losses);

/* The same in two calls for immediate updates, where the loss of the only micro-batch is needed
 * before the backward pass: the forward pass up to the loss, then the backward pass, which calls
 * `layer_ready` for parameters whose gradients are complete. */
typedef struct nd_split_pass {
    nd_gradient_leaf leaf;
    nd_backward_rows rows;
} nd_split_pass;
nd_status nd_passes_forward(nd_run *run, const int32_t *tokens, nd_split_pass *pass, nd_loss *loss);
nd_status nd_passes_backward(nd_run *run, const nd_split_pass *pass,
                             nd_gradients_ready layer_ready);
