/* Error feedback of gradients that are rounded between ranks (dist/gradient_wire.h): for each tensor of
 * another owner that this rank sends, its accumulated rounding error, a byte a value.
 *
 * It is reset when it no longer applies: for a projected gradient when the matrix gets a new subspace, for
 * everything when a step is skipped. It is not in checkpoints; a run resets it when it saves, so that a run
 * resumed there has the same bits. Sketches have none: those of a matrix are galore_update_freq steps apart. */
#pragma once

#include "core/base/arena.h"
#include "dist/gradient_wire.h"

typedef struct nd_error_feedback {
    nd_backend *backend;
    nd_view *residuals; /* [count]; data NULL: none */
    int64_t count;
} nd_error_feedback;

/* For `count` tensors; backend outlives it. Errors: ND_ENOMEM. */
nd_status nd_error_feedback_create(nd_error_feedback *f, nd_backend *backend, int64_t count);
void nd_error_feedback_destroy(nd_error_feedback *f);

/* Lays out that of a tensor, `bytes` long, none where that is 0; run on a sizing arena, commit, run again. Errors:
 * nd_arena_reserve's. */
nd_status nd_error_feedback_reserve(nd_error_feedback *f, int64_t index, size_t bytes,
                                    nd_arena *arena);

nd_status nd_error_feedback_reset(nd_error_feedback *f, int64_t index);
