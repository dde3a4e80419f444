/* Updates of masters from reduced gradients. */
#pragma once

#include "train/passes.h"

/* Updates the owned ones of parameters [first, first + count), which the reducer has summed, with their
 * gradients times `scale`, and gives new subspaces where they are due. Collective. */
nd_status nd_update_run(nd_run *run, int64_t first, int64_t count, float scale);

/* Immediate updates: the backward pass after nd_passes_forward, in which each layer is reduced and updated
 * as soon as its gradients are ready. *nonfinite receives the first parameter whose gradient is not finite,
 * from which on nothing is updated, else -1; *updated whether a parameter was updated. Collective. */
nd_status nd_update_during_backward(nd_run *run, const nd_split_pass *pass, int64_t *nonfinite,
                                    bool *updated);
