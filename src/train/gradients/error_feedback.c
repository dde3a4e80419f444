#include "train/gradients/error_feedback.h"

#include <stdlib.h>

nd_status nd_error_feedback_create(nd_error_feedback *f, nd_backend *backend, int64_t count)
{
    *f = (nd_error_feedback){backend, calloc((size_t)count, sizeof *f->residuals), count};
    return ND_CHECK(f->residuals, ND_ENOMEM, "no memory for the table of error feedback");
}

void nd_error_feedback_destroy(nd_error_feedback *f)
{
    free(f->residuals);
}

nd_status nd_error_feedback_reserve(nd_error_feedback *f, int64_t index, size_t bytes,
                                    nd_arena *arena)
{
    return bytes > 0 ? nd_arena_reserve(arena, ND_U8, 1, (int64_t)bytes, &f->residuals[index])
                     : ND_OK;
}

nd_status nd_error_feedback_reset(nd_error_feedback *f, int64_t index)
{
    const nd_view r = f->residuals[index];
    return r.data ? f->backend->ops.zero(f->backend, r.data, nd_view_bytes(nd_as_const(r))) : ND_OK;
}
