#include "core/model/linear.h"

nd_status nd_linear_input_reserve(nd_arena *arena, bool quantized, nd_dtype compute, int64_t tokens,
                                  int64_t width, nd_linear_input *x)
{
    x->quantized = quantized;
    ND_TRY(nd_arena_reserve(arena, compute == ND_F64 ? ND_F64 : ND_F32, tokens, 1, &x->r));
    if (!quantized)
        return nd_arena_reserve(arena, compute, tokens, width, &x->dense);
    ND_TRY(nd_arena_reserve(arena, ND_I8, tokens, width, &x->q));
    return nd_arena_reserve(arena, ND_F32, tokens, 1, &x->a);
}

nd_linear_input nd_linear_input_shaped(const nd_linear_input *x, int64_t rows, int64_t width)
{
    nd_linear_input out = *x;
    out.q.rows = out.a.rows = out.dense.rows = out.r.rows = rows;
    out.q.cols = out.dense.cols = width;
    return out;
}

nd_status nd_linear_input_copy(nd_backend *b, const nd_linear_input *x, nd_cview input)
{
    if (x->quantized)
        return b->ops.quantize_rows(b, x->q, x->a, input);
    return b->ops.axpby(b, x->dense, 1.0f, input, 0.0f);
}

nd_status nd_linear_input_norm(nd_backend *b, const nd_linear_input *x, nd_cview input,
                               const nd_weight *w)
{
    if (x->quantized)
        return b->ops.rmsnorm_quantize(b, x->q, x->a, x->r, input, nd_as_const(w->dense));
    return b->ops.rmsnorm(b, x->dense, x->r, input, nd_as_const(w->dense));
}

nd_status nd_weight_unpack(nd_backend *b, const nd_weight *w)
{
    return w->packed.data ? b->ops.unpack_codes(b, w->codes, nd_as_const(w->packed)) : ND_OK;
}

nd_status nd_weight_pack(nd_backend *b, const nd_weight *w)
{
    return w->packed.data ? b->ops.pack_codes(b, w->packed, nd_as_const(w->codes)) : ND_OK;
}

nd_status nd_linear_forward(nd_backend *b, nd_view y, const nd_linear_input *x, const nd_weight *w,
                            nd_view scratch)
{
    if (w->ternary)
        ND_TRY(nd_weight_unpack(b, w));
    if (w->ternary && x->quantized)
        return b->ops.ternary_gemm(b, y, nd_as_const(x->q), nd_as_const(x->a),
                                   nd_as_const(w->codes), nd_as_const(w->scales));
    if (!w->ternary)
        return b->ops.gemm(b, y, nd_as_const(x->dense), false, nd_as_const(w->dense), true, 1.0f,
                           0.0f);
    ND_FAIL_IF(scratch.rows * scratch.cols < w->codes.rows * w->codes.cols, ND_EINTERNAL,
               "no scratch memory to dequantize a weight of %lld x %lld", (long long)w->codes.rows,
               (long long)w->codes.cols);
    const nd_view dense = nd_view_of(scratch.data, scratch.dtype, w->codes.rows, w->codes.cols);
    ND_TRY(b->ops.dequantize_codes(b, dense, nd_as_const(w->codes), nd_as_const(w->scales)));
    return b->ops.gemm(b, y, nd_as_const(x->dense), false, nd_as_const(dense), true, 1.0f, 0.0f);
}

nd_status nd_linear_backward_input(nd_backend *b, nd_view dx, nd_cview dy, const nd_weight *w,
                                   bool int8, float beta)
{
    if (w->ternary) {
        ND_TRY(nd_weight_unpack(b, w));
        if (int8)
            return b->ops.ternary_gemm_dx_int8(b, dx, dy, nd_as_const(w->codes),
                                               nd_as_const(w->scales), beta);
        return b->ops.ternary_gemm_dx(b, dx, dy, nd_as_const(w->codes), nd_as_const(w->scales),
                                      beta);
    }
    return b->ops.gemm(b, dx, dy, false, nd_as_const(w->dense), false, 1.0f, beta);
}

nd_status nd_linear_backward_weight(nd_backend *b, nd_view dw, nd_cview dy,
                                    const nd_linear_input *x, bool int8, float beta)
{
    if (x->quantized && int8)
        return b->ops.ternary_gemm_dw_int8(b, dw, dy, nd_as_const(x->q), nd_as_const(x->a), beta);
    if (x->quantized)
        return b->ops.ternary_gemm_dw(b, dw, dy, nd_as_const(x->q), nd_as_const(x->a), beta);
    return b->ops.gemm(b, dw, dy, true, nd_as_const(x->dense), false, 1.0f, beta);
}
