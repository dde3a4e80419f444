#include "train/error_feedback.h"

#include "dist/gradient_wire.h"

nd_gradient_wire nd_error_feedback_format(const nd_run *run, int64_t count)
{
    return nd_gradient_wire_for((nd_gradient_wire)run->config.dist.gradient_wire, count);
}

nd_status nd_error_feedback_reserve(nd_run *run, nd_arena *arena)
{
    for (int64_t i = 0; i < run->model->params.count; i++) {
        int64_t rows, cols;
        nd_optimizer_gradient_shape(run->optimizer, i, &rows, &cols);
        const nd_gradient_wire format = nd_error_feedback_format(run, rows * cols);
        if (run->own.owner[i] != run->comm->rank && format != ND_GRADIENT_WIRE_FP32)
            ND_TRY(nd_arena_reserve(arena, ND_U8, 1,
                                    (int64_t)nd_gradient_residual_bytes(format, rows * cols),
                                    &run->residuals[i]));
    }
    return ND_OK;
}

nd_status nd_error_feedback_drop(nd_run *run, int64_t index)
{
    const nd_view r = run->residuals[index];
    return r.data ? run->backend->ops.zero(run->backend, r.data, nd_view_bytes(nd_as_const(r)))
                  : ND_OK;
}

nd_status nd_error_feedback_drop_all(nd_run *run)
{
    for (int64_t i = 0; i < run->model->params.count; i++)
        ND_TRY(nd_error_feedback_drop(run, i));
    return ND_OK;
}
