/* Updates masters with reduced gradients. */
#pragma once

#include "train/passes.h"

/* Updates those of parameters [first, first + count) that this rank owns with their reduced
 * gradients times `scale`, and gives a new subspace to those that are due. Collective. */
nd_status nd_update_run(nd_run *run, int64_t first, int64_t count, float scale);

/* Immediate updates: the backward pass after nd_passes_forward, in which each layer is reduced and
 * updated as soon as its gradients are complete. *nonfinite: the first parameter whose gradient is
 * not finite, after which nothing more is updated; -1: none. *updated: whether any parameter was
 * updated. Collective. */
nd_status nd_update_during_backward(nd_run *run, const nd_split_pass *pass, int64_t *nonfinite,
                                    bool *updated);
