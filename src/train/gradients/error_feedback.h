/* Error feedback for gradients that are rounded between ranks (dist/reduction/gradient_wire.h): for
 * each tensor that this rank sends rounded, its accumulated rounding error, one byte per value.
 *
 * It is reset when it no longer applies: for a projected gradient when the matrix gets a new
 * subspace, for everything when a step is skipped. Checkpoints do not contain it; a run resets it
 * when it saves, so that a run resumed from there has the same bits. Sketches have none, because
 * those of a matrix are galore_update_freq steps apart. */
#pragma once

#include "core/base/arena.h"
#include "dist/reduction/gradient_wire.h"

typedef struct nd_error_feedback {
    nd_backend *backend;
    nd_view *residuals; /* [count]; data NULL: none */
    int64_t count;
} nd_error_feedback;

/* For `count` tensors. backend must outlive it; the caller destroys it. Errors: ND_ENOMEM. */
nd_status nd_error_feedback_create(nd_error_feedback *f, nd_backend *backend, int64_t count);
void nd_error_feedback_destroy(nd_error_feedback *f);

/* Lays out the `bytes` bytes of a tensor's residual (0: none): run it on a sizing arena, commit,
 * run it again. Errors: those of nd_arena_reserve. */
nd_status nd_error_feedback_reserve(nd_error_feedback *f, int64_t index, size_t bytes,
                                    nd_arena *arena);

nd_status nd_error_feedback_reset(nd_error_feedback *f, int64_t index);
