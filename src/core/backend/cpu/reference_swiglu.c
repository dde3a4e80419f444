/* Reference: the gated activation, alone and fused with the sub-norm that follows it. */
#include "core/backend/cpu/op_families.h"
#include "core/backend/cpu/reference.h"

#include <math.h>
#include <stdlib.h>

static double silu(double z)
{
    return z / (1.0 + exp(-z));
}

static double silu_derivative(double z)
{
    const double sigmoid = 1.0 / (1.0 + exp(-z));
    return sigmoid * (1.0 + z * (1.0 - sigmoid));
}

static nd_status swiglu_reference(nd_backend *b, nd_view h, nd_cview gate, nd_cview up)
{
    (void)b;
    ND_REQUIRE_FLOATS(h.dtype, gate.dtype, up.dtype);
    ND_REQUIRE(nd_same_shape(nd_as_const(h), gate) && nd_same_shape(gate, up));
    for (int64_t i = 0; i < nd_view_count(gate); i++)
        nd_store(h, i, silu(nd_load(gate, i)) * nd_load(up, i));
    return ND_OK;
}

static nd_status swiglu_rmsnorm_quantize_reference(nd_backend *b, nd_view q, nd_view a, nd_view r,
                                                   nd_cview gate, nd_cview up, nd_cview w)
{
    ND_REQUIRE(nd_same_shape(gate, up) && nd_same_shape(nd_as_const(q), gate));
    ND_AUTOFREE double *row = malloc((size_t)gate.cols * sizeof *row);
    ND_FAIL_IF(!row, ND_ENOMEM, "no memory for a row of %lld values", (long long)gate.cols);
    const nd_view hidden = nd_view_of(row, ND_F64, 1, gate.cols);
    for (int64_t t = 0; t < gate.rows; t++) {
        ND_TRY(swiglu_reference(b, hidden, nd_cview_rows(gate, t, 1), nd_cview_rows(up, t, 1)));
        ND_TRY(b->ops.rmsnorm_quantize(b, nd_view_rows(q, t, 1), nd_view_rows(a, t, 1),
                                       nd_view_rows(r, t, 1), nd_as_const(hidden), w));
    }
    return ND_OK;
}

static nd_status swiglu_backward_reference(nd_backend *b, nd_view dgate, nd_view dup, nd_cview dh,
                                           nd_cview gate, nd_cview up)
{
    (void)b;
    ND_REQUIRE_FLOATS(dgate.dtype, dup.dtype, dh.dtype, gate.dtype, up.dtype);
    ND_REQUIRE(nd_same_shape(dh, gate) && nd_same_shape(gate, up));
    ND_REQUIRE(nd_same_shape(nd_as_const(dgate), gate) && nd_same_shape(nd_as_const(dup), gate));
    for (int64_t i = 0; i < nd_view_count(gate); i++) {
        const double z = nd_load(gate, i), u = nd_load(up, i), d = nd_load(dh, i);
        nd_store(dgate, i, d * u * silu_derivative(z));
        nd_store(dup, i, d * silu(z));
    }
    return ND_OK;
}

static nd_status swiglu_rmsnorm_backward_reference(nd_backend *b, nd_view dgate, nd_view dup,
                                                   nd_view dw, nd_view q, nd_view a, nd_view r,
                                                   nd_cview dy, nd_cview gate, nd_cview up,
                                                   nd_cview w)
{
    ND_REQUIRE_FLOATS(dgate.dtype, dup.dtype, r.dtype, dy.dtype, gate.dtype, up.dtype, w.dtype);
    ND_REQUIRE(nd_same_shape(dy, gate) && nd_same_shape(gate, up) && r.rows == gate.rows);
    ND_REQUIRE(nd_same_shape(nd_as_const(dgate), gate) && nd_same_shape(nd_as_const(dup), gate));
    const size_t count = (size_t)nd_view_count(gate);
    ND_AUTOFREE double *memory = malloc((2 * count + 1) * sizeof *memory);
    ND_FAIL_IF(!memory, ND_ENOMEM, "no memory for 2 x %zu values", count);
    const nd_view hidden = nd_view_of(memory, ND_F64, gate.rows, gate.cols);
    const nd_view dhidden = nd_view_of(memory + count, ND_F64, gate.rows, gate.cols);
    if (q.data)
        ND_TRY(swiglu_rmsnorm_quantize_reference(b, q, a, r, gate, up, w));
    ND_TRY(swiglu_reference(b, hidden, gate, up));
    ND_TRY(
        b->ops.rmsnorm_backward(b, dhidden, dw, dy, nd_as_const(hidden), w, nd_as_const(r), 0.0f));
    return swiglu_backward_reference(b, dgate, dup, nd_as_const(dhidden), gate, up);
}

void nd_reference_fill_swiglu(nd_backend_ops *ops)
{
    ops->swiglu = swiglu_reference;
    ops->swiglu_rmsnorm_quantize = swiglu_rmsnorm_quantize_reference;
    ops->swiglu_backward = swiglu_backward_reference;
    ops->swiglu_rmsnorm_backward = swiglu_rmsnorm_backward_reference;
}
