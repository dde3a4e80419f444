/* Fast layer: ternary codes and the quantization of activations. */
#include "core/backend/cpu/fast_rows.h"
#include "core/backend/cpu/op_families.h"
#include "core/base/trits.h"

#include <string.h>

enum { CHUNK = 4096 };

static float ternary_scale(double sum, int64_t count)
{
    const double mean = sum / (double)count;
    return nd_f16_round((float)(mean < 1e-5 ? 1e-5 : mean));
}

/* One scale for each `span` consecutive weights, spans short enough for one thread. */
static void ternarize_spans(nd_cpu_fast *fast, nd_view c, nd_view s, nd_cview w, int64_t span)
{
    const nd_fast_kernels *k = fast->kernels;
#pragma omp parallel for num_threads(nd_fast_team(fast, nd_view_count(w)))
    for (int64_t i = 0; i < s.rows * s.cols; i++) {
        float buffer[CHUNK];
        double sum = 0.0;
        for (int64_t at = 0; at < span; at += CHUNK) {
            const int64_t n = nd_fast_min(CHUNK, span - at);
            sum += k->sum_abs(nd_fast_load(k, w, i * span + at, n, buffer), n);
        }
        const float scale = ternary_scale(sum, span);
        ((float *)s.data)[i] = scale;
        for (int64_t at = 0; at < span; at += CHUNK) {
            const int64_t n = nd_fast_min(CHUNK, span - at);
            const float *row = nd_fast_load(k, w, i * span + at, n, buffer);
            k->ternarize((int8_t *)c.data + i * span + at, row, 0.5f * scale, n);
        }
    }
}

static nd_status ternarize_matrix(nd_cpu_fast *fast, nd_view c, nd_view s, nd_cview w)
{
    const nd_fast_kernels *k = fast->kernels;
    const int64_t count = nd_view_count(w), chunks = nd_fast_ceil(count, CHUNK);
    ND_TRY(nd_fast_grow(&fast->shared, nd_fast_bytes(chunks, sizeof(double))));
    double *partial = fast->shared.memory;
#pragma omp parallel for num_threads(nd_fast_team(fast, count))
    for (int64_t i = 0; i < chunks; i++) {
        float buffer[CHUNK];
        const int64_t n = nd_fast_min(CHUNK, count - i * CHUNK);
        partial[i] = k->sum_abs(nd_fast_load(k, w, i * CHUNK, n, buffer), n);
    }
    double sum = 0.0;
    for (int64_t i = 0; i < chunks; i++)
        sum += partial[i];
    const float scale = ternary_scale(sum, count);
    *(float *)s.data = scale;
#pragma omp parallel for num_threads(nd_fast_team(fast, count))
    for (int64_t i = 0; i < chunks; i++) {
        float buffer[CHUNK];
        const int64_t n = nd_fast_min(CHUNK, count - i * CHUNK);
        const float *row = nd_fast_load(k, w, i * CHUNK, n, buffer);
        k->ternarize((int8_t *)c.data + i * CHUNK, row, 0.5f * scale, n);
    }
    return ND_OK;
}

static nd_status ternarize_fast(nd_backend *b, nd_view c, nd_view s, nd_cview w)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    if (!nd_fast_covers(w.dtype))
        return fast->reference.ternarize(b, c, s, w);
    ND_REQUIRE(c.dtype == ND_I8 && nd_same_shape(nd_as_const(c), w));
    ND_REQUIRE(nd_scales_fit(nd_as_const(c), nd_as_const(s)));
    if (nd_single_scale(nd_as_const(s)))
        return ternarize_matrix(fast, c, s, w);
    ternarize_spans(fast, c, s, w, w.cols / s.cols);
    return ND_OK;
}

static nd_status pack_codes_fast(nd_backend *b, nd_view packed, nd_cview c)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    const int64_t count = nd_view_count(c), whole = count / 4;
    ND_REQUIRE(packed.dtype == ND_U8 && c.dtype == ND_I8);
    ND_REQUIRE(nd_view_count(nd_as_const(packed)) == (count + 3) / 4);
    const int8_t *codes = c.data;
    uint8_t *out = packed.data;
#pragma omp parallel for num_threads(nd_fast_team(fast, count))
    for (int64_t at = 0; at < whole; at += CHUNK)
        fast->kernels->pack(out + at, codes + 4 * at, nd_fast_min(CHUNK, whole - at));
    if (count % 4 == 0)
        return ND_OK;
    int8_t last[4] = {-1, -1, -1, -1}; /* absent codes leave zero bits */
    memcpy(last, codes + 4 * whole, (size_t)(count % 4));
    fast->kernels->pack(out + whole, last, 1);
    return ND_OK;
}

static nd_status unpack_codes_fast(nd_backend *b, nd_view c, nd_cview packed)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    const int64_t count = nd_view_count(nd_as_const(c)), whole = count / 4;
    ND_REQUIRE(packed.dtype == ND_U8 && c.dtype == ND_I8);
    ND_REQUIRE(nd_view_count(packed) == (count + 3) / 4);
    int8_t *codes = c.data;
    const uint8_t *in = packed.data;
#pragma omp parallel for num_threads(nd_fast_team(fast, count))
    for (int64_t at = 0; at < whole; at += CHUNK)
        fast->kernels->unpack(codes + 4 * at, in + at, nd_fast_min(CHUNK, whole - at));
    if (count % 4 == 0)
        return ND_OK;
    int8_t last[4];
    fast->kernels->unpack(last, in + whole, 1);
    memcpy(codes + 4 * whole, last, (size_t)(count % 4));
    return ND_OK;
}

static nd_status pack_trits_fast(nd_backend *b, nd_view packed, nd_cview c)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    const int64_t count = nd_view_count(c), bytes = nd_trits_bytes(count);
    const int64_t whole = count - 4 * bytes; /* bytes of five codes */
    ND_REQUIRE(packed.dtype == ND_U8 && c.dtype == ND_I8);
    ND_REQUIRE(nd_view_count(nd_as_const(packed)) == bytes);
    const int8_t *codes = c.data;
    uint8_t *out = packed.data;
#pragma omp parallel for num_threads(nd_fast_team(fast, count))
    for (int64_t at = 0; at < whole; at += CHUNK)
        fast->kernels->pack_trits(out + at, codes + at, bytes, nd_fast_min(CHUNK, whole - at));
    nd_trits_pack(out, codes, count, whole > 0 ? whole : 0, bytes);
    return ND_OK;
}

static nd_status unpack_trits_fast(nd_backend *b, nd_view c, nd_cview packed)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    const int64_t count = nd_view_count(nd_as_const(c)), bytes = nd_trits_bytes(count);
    const int64_t whole = count - 4 * bytes;
    ND_REQUIRE(packed.dtype == ND_U8 && c.dtype == ND_I8);
    ND_REQUIRE(nd_view_count(packed) == bytes);
    int8_t *codes = c.data;
    const uint8_t *in = packed.data;
#pragma omp parallel for num_threads(nd_fast_team(fast, count))
    for (int64_t at = 0; at < whole; at += CHUNK)
        fast->kernels->unpack_trits(codes + at, in + at, bytes, nd_fast_min(CHUNK, whole - at));
    nd_trits_unpack(codes, in, count, whole > 0 ? whole : 0, bytes);
    return ND_OK;
}

static nd_status dequantize_codes_fast(nd_backend *b, nd_view w, nd_cview c, nd_cview s)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    if (!nd_fast_covers(w.dtype))
        return fast->reference.dequantize_codes(b, w, c, s);
    ND_REQUIRE(c.dtype == ND_I8 && nd_same_shape(nd_as_const(w), c) && nd_scales_fit(c, s));
    const nd_fast_kernels *k = fast->kernels;
    const bool single = nd_single_scale(s);
    const int64_t width = single ? c.cols : c.cols / s.cols;
    const float *scales = s.data;
    ND_TRY(nd_fast_grow_private(fast, nd_fast_bytes(c.cols, sizeof(float))));
#pragma omp parallel for num_threads(nd_fast_team(fast, nd_view_count(c)))
    for (int64_t row = 0; row < c.rows; row++) {
        const int64_t at = row * c.cols;
        float *target = nd_fast_target(w, at, fast->private[nd_fast_thread()].memory);
        for (int64_t first = 0; first < c.cols; first += width)
            k->load_i8(target + first, (const int8_t *)c.data + at + first,
                       single ? scales[0] : scales[row * s.cols + first / width], width);
        nd_fast_store(k, w, at, c.cols, target);
    }
    return ND_OK;
}

static nd_status quantize_rows_fast(nd_backend *b, nd_view q, nd_view a, nd_cview x)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    if (!nd_fast_covers(x.dtype))
        return fast->reference.quantize_rows(b, q, a, x);
    ND_REQUIRE(q.dtype == ND_I8 && a.dtype == ND_F32 && nd_same_shape(nd_as_const(q), x));
    ND_REQUIRE(a.rows == x.rows && a.cols == 1);
    const nd_fast_kernels *k = fast->kernels;
    const int64_t n = x.cols;
    ND_TRY(nd_fast_grow_private(fast, nd_fast_bytes(n, sizeof(float))));
#pragma omp parallel for num_threads(nd_fast_team(fast, nd_view_count(x)))
    for (int64_t t = 0; t < x.rows; t++) {
        const float *row = nd_fast_load(k, x, t * n, n, fast->private[nd_fast_thread()].memory);
        nd_fast_quantize_row(k, (int8_t *)q.data + t * n, (float *)a.data + t, row, n);
    }
    return ND_OK;
}

void nd_fast_fill_codes(nd_backend_ops *ops)
{
    ops->ternarize = ternarize_fast;
    ops->pack_codes = pack_codes_fast;
    ops->unpack_codes = unpack_codes_fast;
    ops->pack_trits = pack_trits_fast;
    ops->unpack_trits = unpack_trits_fast;
    ops->dequantize_codes = dequantize_codes_fast;
    ops->quantize_rows = quantize_rows_fast;
}
