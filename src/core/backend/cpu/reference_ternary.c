/* Reference: ternary codes, activation quantization, and the products. */
#include "core/backend/cpu/op_families.h"
#include "core/backend/cpu/reference.h"
#include "core/base/trits.h"

#include <math.h>

static double clip(double x, double low, double high)
{
    return x < low ? low : x > high ? high : x;
}

/* A NaN has no integer value, and casting one is undefined: its code is 0. */
static int8_t clip_code(double rounded, double low, double high)
{
    return isnan(rounded) ? 0 : (int8_t)clip(rounded, low, high);
}

/* Inputs that share one scale. */
static int64_t group_width(nd_cview codes, nd_cview scales)
{
    return nd_single_scale(scales) ? codes.cols : codes.cols / scales.cols;
}

static double scale_at(nd_cview codes, nd_cview scales, int64_t row, int64_t col)
{
    if (nd_single_scale(scales))
        return nd_load(scales, 0);
    return nd_load(scales, row * scales.cols + col / group_width(codes, scales));
}

static void ternarize_span(nd_view c, nd_cview w, int64_t first, int64_t count, float *scale)
{
    double sum = 0.0;
    for (int64_t i = first; i < first + count; i++)
        sum += fabs(nd_load(w, i));
    const double mean = sum / (double)count;
    *scale = nd_f16_round((float)(mean < 1e-5 ? 1e-5 : mean));
    int8_t *codes = c.data;
    for (int64_t i = first; i < first + count; i++)
        codes[i] = clip_code(rint(nd_load(w, i) / (double)*scale), -1.0, 1.0);
}

static nd_status ternarize_reference(nd_backend *b, nd_view c, nd_view s, nd_cview w)
{
    (void)b;
    ND_REQUIRE(c.dtype == ND_I8 && nd_is_float(w.dtype) && nd_same_shape(nd_as_const(c), w));
    ND_REQUIRE(nd_scales_fit(nd_as_const(c), nd_as_const(s)));
    float *scales = s.data;
    const bool single = nd_single_scale(nd_as_const(s));
    const int64_t span = single ? c.rows * c.cols : group_width(nd_as_const(c), nd_as_const(s));
    for (int64_t i = 0; i < s.rows * s.cols; i++)
        ternarize_span(c, w, i * span, span, &scales[i]);
    return ND_OK;
}

static nd_status pack_codes_reference(nd_backend *b, nd_view packed, nd_cview c)
{
    (void)b;
    const int64_t count = nd_view_count(c);
    ND_REQUIRE(packed.dtype == ND_U8 && c.dtype == ND_I8);
    ND_REQUIRE(nd_view_count(nd_as_const(packed)) == (count + 3) / 4);
    uint8_t *out = packed.data;
    const int8_t *codes = c.data;
    for (int64_t byte = 0; byte < (count + 3) / 4; byte++) {
        unsigned bits = 0;
        for (int64_t j = 0; j < 4 && byte * 4 + j < count; j++)
            bits |= (unsigned)(codes[byte * 4 + j] + 1) << (2 * j);
        out[byte] = (uint8_t)bits;
    }
    return ND_OK;
}

static nd_status unpack_codes_reference(nd_backend *b, nd_view c, nd_cview packed)
{
    (void)b;
    const int64_t count = nd_view_count(nd_as_const(c));
    ND_REQUIRE(packed.dtype == ND_U8 && c.dtype == ND_I8);
    ND_REQUIRE(nd_view_count(packed) == (count + 3) / 4);
    const uint8_t *in = packed.data;
    int8_t *codes = c.data;
    for (int64_t i = 0; i < count; i++)
        codes[i] = (int8_t)((int)((in[i / 4] >> (2 * (i % 4))) & 3u) - 1);
    return ND_OK;
}

static nd_status pack_trits_reference(nd_backend *b, nd_view packed, nd_cview c)
{
    (void)b;
    const int64_t count = nd_view_count(c), bytes = nd_trits_bytes(count);
    ND_REQUIRE(packed.dtype == ND_U8 && c.dtype == ND_I8);
    ND_REQUIRE(nd_view_count(nd_as_const(packed)) == bytes);
    nd_trits_pack(packed.data, c.data, count, 0, bytes);
    return ND_OK;
}

static nd_status unpack_trits_reference(nd_backend *b, nd_view c, nd_cview packed)
{
    (void)b;
    const int64_t count = nd_view_count(nd_as_const(c)), bytes = nd_trits_bytes(count);
    ND_REQUIRE(packed.dtype == ND_U8 && c.dtype == ND_I8);
    ND_REQUIRE(nd_view_count(packed) == bytes);
    nd_trits_unpack(c.data, packed.data, count, 0, bytes);
    return ND_OK;
}

static nd_status dequantize_codes_reference(nd_backend *b, nd_view w, nd_cview c, nd_cview s)
{
    (void)b;
    ND_REQUIRE(nd_is_float(w.dtype) && c.dtype == ND_I8 && nd_same_shape(nd_as_const(w), c));
    ND_REQUIRE(nd_scales_fit(c, s));
    for (int64_t row = 0; row < c.rows; row++)
        for (int64_t col = 0; col < c.cols; col++) {
            const int64_t i = row * c.cols + col;
            nd_store(w, i, scale_at(c, s, row, col) * nd_load(c, i));
        }
    return ND_OK;
}

static nd_status quantize_rows_reference(nd_backend *b, nd_view q, nd_view a, nd_cview x)
{
    (void)b;
    ND_REQUIRE(q.dtype == ND_I8 && a.dtype == ND_F32 && nd_is_float(x.dtype));
    ND_REQUIRE(nd_same_shape(nd_as_const(q), x) && a.rows == x.rows && a.cols == 1);
    int8_t *codes = q.data;
    float *absmax = a.data;
    for (int64_t t = 0; t < x.rows; t++) {
        float largest = 1e-5f;
        for (int64_t i = 0; i < x.cols; i++) {
            const float magnitude = (float)fabs(nd_load(x, t * x.cols + i));
            largest = magnitude > largest || isnan(magnitude) ? magnitude : largest;
        }
        absmax[t] = largest;
        const float factor = isfinite(largest) ? 127.0f / largest : 0.0f;
        for (int64_t i = 0; i < x.cols; i++) {
            const float scaled = (float)nd_load(x, t * x.cols + i) * factor;
            codes[t * x.cols + i] = clip_code((double)rintf(scaled), -128.0, 127.0);
        }
    }
    return ND_OK;
}

static nd_status ternary_gemm_reference(nd_backend *b, nd_view y, nd_cview q, nd_cview a,
                                        nd_cview c, nd_cview s)
{
    (void)b;
    ND_REQUIRE(nd_is_float(y.dtype) && q.dtype == ND_I8 && a.dtype == ND_F32 && c.dtype == ND_I8);
    ND_REQUIRE(y.rows == q.rows && a.rows == q.rows && y.cols == c.rows && q.cols == c.cols);
    ND_REQUIRE(nd_scales_fit(c, s));
    const int8_t *tokens = q.data, *codes = c.data;
    const int64_t width = group_width(c, s);
    for (int64_t t = 0; t < y.rows; t++)
        for (int64_t o = 0; o < y.cols; o++) {
            double total = 0.0;
            for (int64_t start = 0; start < c.cols; start += width) {
                int32_t sum = 0;
                for (int64_t i = start; i < start + width; i++)
                    sum += (int32_t)tokens[t * q.cols + i] * (int32_t)codes[o * c.cols + i];
                total += scale_at(c, s, o, start) * (double)sum;
            }
            nd_store(y, t * y.cols + o, total * nd_load(a, t) / 127.0);
        }
    return ND_OK;
}

static nd_status ternary_gemm_dx_reference(nd_backend *b, nd_view dx, nd_cview dy, nd_cview c,
                                           nd_cview s, float beta)
{
    (void)b;
    ND_REQUIRE(nd_is_float(dx.dtype) && nd_is_float(dy.dtype) && c.dtype == ND_I8);
    ND_REQUIRE(dx.rows == dy.rows && dx.cols == c.cols && dy.cols == c.rows && nd_scales_fit(c, s));
    for (int64_t t = 0; t < dx.rows; t++)
        for (int64_t i = 0; i < dx.cols; i++) {
            double sum = 0.0;
            for (int64_t o = 0; o < dy.cols; o++)
                sum += nd_load(dy, t * dy.cols + o) * scale_at(c, s, o, i) *
                       nd_load(c, o * c.cols + i);
            nd_accumulate(dx, t * dx.cols + i, sum, beta);
        }
    return ND_OK;
}

static nd_status ternary_gemm_dw_reference(nd_backend *b, nd_view dw, nd_cview dy, nd_cview q,
                                           nd_cview a, float beta)
{
    (void)b;
    ND_REQUIRE((dw.dtype == ND_F32 || dw.dtype == ND_F64) && nd_is_float(dy.dtype));
    ND_REQUIRE(q.dtype == ND_I8 && a.dtype == ND_F32 && a.rows == q.rows && dy.rows == q.rows);
    ND_REQUIRE(dw.rows == dy.cols && dw.cols == q.cols);
    for (int64_t o = 0; o < dw.rows; o++)
        for (int64_t i = 0; i < dw.cols; i++) {
            double sum = 0.0;
            for (int64_t t = 0; t < dy.rows; t++)
                sum += nd_load(dy, t * dy.cols + o) * nd_load(q, t * q.cols + i) * nd_load(a, t) /
                       127.0;
            nd_accumulate(dw, o * dw.cols + i, sum, beta);
        }
    return ND_OK;
}

static nd_status gemm_reference(nd_backend *b, nd_view c, nd_cview a, bool transpose_a, nd_cview bb,
                                bool transpose_b, float alpha, float beta)
{
    (void)b;
    const int64_t inner = transpose_a ? a.rows : a.cols;
    ND_REQUIRE(nd_is_float(c.dtype) && nd_is_float(a.dtype) && nd_is_float(bb.dtype));
    ND_REQUIRE((transpose_a ? a.cols : a.rows) == c.rows);
    ND_REQUIRE((transpose_b ? bb.rows : bb.cols) == c.cols);
    ND_REQUIRE((transpose_b ? bb.cols : bb.rows) == inner);
    for (int64_t m = 0; m < c.rows; m++)
        for (int64_t n = 0; n < c.cols; n++) {
            double sum = 0.0;
            for (int64_t k = 0; k < inner; k++)
                sum += nd_load(a, transpose_a ? k * a.cols + m : m * a.cols + k) *
                       nd_load(bb, transpose_b ? n * bb.cols + k : k * bb.cols + n);
            nd_accumulate(c, m * c.cols + n, alpha * sum, beta);
        }
    return ND_OK;
}

static nd_status gemm_symmetric_reference(nd_backend *b, nd_view c, nd_cview a, bool transpose_a,
                                          nd_cview bb, float alpha, float beta, float gamma)
{
    const int64_t inner = transpose_a ? a.rows : a.cols;
    const int64_t down = transpose_a ? a.cols : 1, across = transpose_a ? 1 : a.cols;
    (void)b;
    ND_REQUIRE_FLOATS(c.dtype, a.dtype, bb.dtype);
    ND_REQUIRE(c.rows == (transpose_a ? a.cols : a.rows) && c.cols == c.rows);
    ND_REQUIRE(nd_same_shape(a, bb) && (beta == 0.0f || inner == c.rows));
    for (int64_t m = 0; m < c.rows; m++)
        for (int64_t n = 0; n <= m; n++) {
            double sum = 0.0;
            for (int64_t k = 0; k < inner; k++)
                sum += nd_load(a, m * across + k * down) * nd_load(bb, n * across + k * down);
            sum = alpha * sum + (m == n ? gamma : 0.0);
            if (beta != 0.0f)
                sum += beta * nd_load(bb, m * c.cols + n);
            nd_store(c, m * c.cols + n, sum);
            nd_store(c, n * c.cols + m, sum);
        }
    return ND_OK;
}

void nd_reference_fill_ternary(nd_backend_ops *ops)
{
    ops->ternarize = ternarize_reference;
    ops->pack_codes = pack_codes_reference;
    ops->unpack_codes = unpack_codes_reference;
    ops->pack_trits = pack_trits_reference;
    ops->unpack_trits = unpack_trits_reference;
    ops->dequantize_codes = dequantize_codes_reference;
    ops->quantize_rows = quantize_rows_reference;
    ops->ternary_gemm = ternary_gemm_reference;
    ops->ternary_gemm_dx = ternary_gemm_dx_reference;
    ops->ternary_gemm_dw = ternary_gemm_dw_reference;
    ops->gemm = gemm_reference;
    ops->gemm_symmetric = gemm_symmetric_reference;
}
