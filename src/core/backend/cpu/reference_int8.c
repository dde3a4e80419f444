/* Reference: the backward products with gradients in 8 bits. */
#include "core/backend/cpu/op_families.h"
#include "core/backend/cpu/reference.h"

#include <math.h>
#include <stdlib.h>

/* max |x|; NaN if there is one. */
static float max_magnitude(const float *x, int64_t n)
{
    float largest = 0.0f;
    for (int64_t i = 0; i < n; i++)
        if (!(fabsf(x[i]) <= largest) && !isnan(largest))
            largest = fabsf(x[i]);
    return largest;
}

/* Replaces x by its codes. Returns m, the scale of their sums. */
static float encode(float *x, int64_t n)
{
    const float m = max_magnitude(x, n);
    const float factor = nd_state_factor(127.0f, m);
    for (int64_t i = 0; i < n; i++)
        x[i] = rintf(x[i] * factor);
    return m;
}

static double code_sum(const float *codes, const int8_t *other, int64_t stride, int64_t n)
{
    int32_t sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (int32_t)codes[i] * (int32_t)other[i * stride];
    return (double)sum;
}

static nd_status ternary_gemm_dx_int8_reference(nd_backend *b, nd_view dx, nd_cview dy, nd_cview c,
                                                nd_cview s, float beta)
{
    (void)b;
    ND_REQUIRE(nd_is_float(dx.dtype) && nd_is_float(dy.dtype) && c.dtype == ND_I8);
    ND_REQUIRE(dx.rows == dy.rows && dx.cols == c.cols && dy.cols == c.rows);
    ND_REQUIRE(s.dtype == ND_F32 && s.rows == 1 && s.cols == 1 && (beta == 0.0f || beta == 1.0f));
    ND_AUTOFREE float *row = malloc((size_t)(dy.cols + 1) * sizeof *row);
    ND_FAIL_IF(!row, ND_ENOMEM, "no memory for a row of %lld gradients", (long long)dy.cols);
    for (int64_t t = 0; t < dx.rows; t++) {
        for (int64_t o = 0; o < dy.cols; o++)
            row[o] = (float)nd_load(dy, t * dy.cols + o);
        const double m = (double)encode(row, dy.cols);
        const bool finite = isfinite(m);
        for (int64_t i = 0; i < dx.cols; i++) {
            const double sum =
                finite ? code_sum(row, (const int8_t *)c.data + i, c.cols, dy.cols) : NAN;
            nd_accumulate(dx, t * dx.cols + i, nd_load(s, 0) * sum * m / 127.0, beta);
        }
    }
    return ND_OK;
}

static nd_status ternary_gemm_dw_int8_reference(nd_backend *b, nd_view dw, nd_cview dy, nd_cview q,
                                                nd_cview a, float beta)
{
    (void)b;
    ND_REQUIRE((dw.dtype == ND_F32 || dw.dtype == ND_F64) && nd_is_float(dy.dtype));
    ND_REQUIRE(q.dtype == ND_I8 && a.dtype == ND_F32 && a.rows == q.rows && dy.rows == q.rows);
    ND_REQUIRE(dw.rows == dy.cols && dw.cols == q.cols && (beta == 0.0f || beta == 1.0f));
    if (dy.rows == 0 && beta == 0.0f)
        return b->ops.zero(b, dw.data, nd_view_bytes(nd_as_const(dw)));
    float column[ND_INT8_TOKENS];
    for (int64_t first = 0; first < dy.rows; first += ND_INT8_TOKENS) {
        const int64_t left = dy.rows - first, n = left < ND_INT8_TOKENS ? left : ND_INT8_TOKENS;
        const int8_t *tokens = (const int8_t *)q.data + first * q.cols;
        for (int64_t o = 0; o < dw.rows; o++) {
            for (int64_t t = 0; t < n; t++)
                column[t] = (float)nd_load(dy, (first + t) * dy.cols + o) *
                            (((const float *)a.data)[first + t] / 127.0f);
            const double m = (double)encode(column, n);
            const bool finite = isfinite(m);
            for (int64_t i = 0; i < dw.cols; i++) {
                const double sum = finite ? code_sum(column, tokens + i, q.cols, n) : NAN;
                nd_accumulate(dw, o * dw.cols + i, sum * m / 127.0, first > 0 ? 1.0f : beta);
            }
        }
    }
    return ND_OK;
}

void nd_reference_fill_int8(nd_backend_ops *ops)
{
    ops->ternary_gemm_dx_int8 = ternary_gemm_dx_int8_reference;
    ops->ternary_gemm_dw_int8 = ternary_gemm_dw_int8_reference;
}
