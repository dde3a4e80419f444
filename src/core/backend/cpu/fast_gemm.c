/* Fast layer: the ternary and the dense products. */
#include "core/backend/cpu/fast_product.h"
#include "core/backend/cpu/op_families.h"

#include <string.h>

/* Elements [at, at + n) of f->c: plus sums times factor if it accumulates, else just that. */
static void finish_scaled_row(const nd_fast_kernels *k, const nd_scaled_sums *f, int64_t at,
                              const int32_t *sums, float factor, int64_t n)
{
    float values[1024], before[1024];
    for (int64_t j = 0; j < n; j += 1024) {
        const int64_t count = nd_fast_min(1024, n - j);
        float *target = nd_fast_target(f->c, at + j, values);
        if (f->accumulate) {
            const float *start = nd_fast_load(k, nd_as_const(f->c), at + j, count, before);
            k->load_i32(values, sums + j, factor, count);
            k->add(target, start, values, count);
        } else {
            k->load_i32(target, sums + j, factor, count);
        }
        nd_fast_store(k, f->c, at + j, count, target);
    }
}

void nd_fast_finish_scaled(const nd_fast_kernels *k, const void *context, nd_tile tile)
{
    const nd_scaled_sums *f = context;
    const bool rounds = f->c.dtype == ND_BF16 && !f->accumulate;
    for (int64_t i = 0; i < tile.rows; i++) {
        const int32_t *sums = (const int32_t *)tile.values + i * tile.stride;
        const int64_t at = (tile.row + i) * f->c.cols + tile.col;
        const float factor = (float)((double)f->scale * (double)f->largest[tile.row + i] / 127.0);
        if (rounds)
            (f->stream ? k->stream_i32_as_bf16 : k->load_i32_as_bf16)((uint16_t *)f->c.data + at,
                                                                      sums, factor, tile.cols);
        else
            finish_scaled_row(k, f, at, sums, factor, tile.cols);
    }
    if (rounds && f->stream)
        k->drain();
}

/* Group-scaled sums: the product of one group of inputs at a time, added in f32 with the group's
 * scales, given as [in/g, out]. */
typedef struct group_context {
    nd_view sums; /* f32 [t, out] */
    const float *scales;
} group_context;

static void finish_group(const nd_fast_kernels *k, const void *context, nd_tile tile)
{
    const group_context *g = context;
    for (int64_t i = 0; i < tile.rows; i++) {
        float *sums = (float *)g->sums.data + (tile.row + i) * g->sums.cols + tile.col;
        k->add_i32(sums, (const int32_t *)tile.values + i * tile.stride, g->scales + tile.col,
                   tile.cols);
    }
}

/* Gathers columns [first, first + count) of every row of an i8 matrix. */
static void gather_columns(nd_cpu_fast *fast, int8_t *out, nd_cview x, int64_t first, int64_t count)
{
    const int8_t *in = x.data;
#pragma omp parallel for num_threads(fast->threads)
    for (int64_t row = 0; row < x.rows; row++)
        memcpy(out + row * count, in + row * x.cols + first, (size_t)count);
}

static nd_status ternary_gemm_groups(nd_cpu_fast *fast, nd_view y, nd_cview q, nd_cview a,
                                     nd_cview c, nd_cview s)
{
    const nd_fast_kernels *k = fast->kernels;
    const int64_t groups = s.cols, width = c.cols / groups;
    const size_t sums_bytes = nd_fast_bytes(y.rows * y.cols, 4);
    const size_t scale_bytes = nd_fast_bytes(c.rows * groups, 4);
    const size_t q_bytes = nd_fast_bytes(q.rows * width, 1);
    ND_TRY(nd_fast_grow(&fast->shared,
                        sums_bytes + scale_bytes + q_bytes + nd_fast_bytes(c.rows * width, 1)));
    float *sums = fast->shared.memory;
    float *scales = (float *)((char *)sums + sums_bytes);
    int8_t *q_part = (int8_t *)((char *)scales + scale_bytes);
    int8_t *c_part = q_part + q_bytes;
    memset(sums, 0, sums_bytes);
    for (int64_t o = 0; o < c.rows; o++)
        for (int64_t g = 0; g < groups; g++)
            scales[g * c.rows + o] = ((const float *)s.data)[o * groups + g];
    for (int64_t g = 0; g < groups; g++) {
        gather_columns(fast, q_part, q, g * width, width);
        gather_columns(fast, c_part, c, g * width, width);
        const group_context context = {nd_view_of(sums, ND_F32, y.rows, y.cols),
                                       scales + g * c.rows};
        const nd_product product = {.m = q.rows,
                                    .n = c.rows,
                                    .k = width,
                                    .a = nd_cview_of(q_part, ND_I8, q.rows, width),
                                    .b = nd_cview_of(c_part, ND_I8, c.rows, width),
                                    .ternary = true,
                                    .transpose_b = true,
                                    .staged = ND_I32,
                                    .finish = finish_group,
                                    .context = &context};
        ND_TRY(nd_fast_multiply(fast, &product));
    }
#pragma omp parallel for num_threads(fast->threads)
    for (int64_t t = 0; t < y.rows; t++) {
        float *row = sums + t * y.cols;
        float *target = nd_fast_target(y, t * y.cols, row);
        k->scale(target, row, (float)((double)((const float *)a.data)[t] / 127.0), y.cols);
        nd_fast_store(k, y, t * y.cols, y.cols, target);
    }
    return ND_OK;
}

static nd_status ternary_gemm_onednn(nd_backend *b, nd_view y, nd_cview q, nd_cview a, nd_cview c,
                                     nd_cview s)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    if (!nd_fast_covers(y.dtype) || q.cols == 0)
        return fast->reference.ternary_gemm(b, y, q, a, c, s);
    ND_REQUIRE(q.dtype == ND_I8 && a.dtype == ND_F32 && a.rows == q.rows && a.cols == 1);
    ND_REQUIRE(y.rows == q.rows && y.cols == c.rows && q.cols == c.cols);
    ND_REQUIRE(c.dtype == ND_I8 && nd_scales_fit(c, s));
    if (!nd_single_scale(s))
        return ternary_gemm_groups(fast, y, q, a, c, s);
    const nd_scaled_sums context = {.c = y,
                                    .scale = *(const float *)s.data,
                                    .largest = a.data,
                                    .stream = nd_fast_streams(fast, y)};
    const nd_product product = {.m = q.rows,
                                .n = c.rows,
                                .k = q.cols,
                                .a = q,
                                .b = c,
                                .ternary = true,
                                .transpose_b = true,
                                .staged = ND_I32,
                                .finish = nd_fast_finish_scaled,
                                .context = &context};
    return nd_fast_multiply(fast, &product);
}

typedef struct blend_context {
    nd_view c;
    float alpha, beta;
} blend_context;

/* c = alpha tile + beta c. */
static void finish_blend(const nd_fast_kernels *k, const void *context, nd_tile tile)
{
    const blend_context *f = context;
    for (int64_t i = 0; i < tile.rows; i++) {
        float *values = (float *)tile.values + i * tile.stride;
        const int64_t at = (tile.row + i) * f->c.cols + tile.col;
        if (f->c.dtype == ND_BF16 && f->alpha == 1.0f && f->beta == 0.0f) {
            k->store_bf16((uint16_t *)f->c.data + at, values, tile.cols);
            continue;
        }
        float buffer[1024];
        for (int64_t j = 0; j < tile.cols; j += 1024) {
            const int64_t n = nd_fast_min(1024, tile.cols - j);
            float *target = nd_fast_target(f->c, at + j, buffer);
            if (f->beta != 0.0f) {
                nd_fast_load(k, nd_as_const(f->c), at + j, n, buffer);
                k->axpby(target, f->alpha, values + j, f->beta, n);
            } else {
                k->scale(target, values + j, f->alpha, n);
            }
            nd_fast_store(k, f->c, at + j, n, target);
        }
    }
}

nd_cview nd_fast_as_dtype(nd_cpu_fast *fast, nd_cview x, nd_dtype dtype, void *memory)
{
    if (x.dtype == dtype)
        return x;
    const nd_fast_kernels *k = fast->kernels;
#pragma omp parallel for num_threads(fast->threads)
    for (int64_t row = 0; row < x.rows; row++) {
        const int64_t at = row * x.cols;
        if (x.dtype == ND_I8 && dtype == ND_BF16)
            k->i8_to_bf16((uint16_t *)memory + at, (const int8_t *)x.data + at, x.cols);
        else if (dtype == ND_BF16)
            k->store_bf16((uint16_t *)memory + at, (const float *)x.data + at, x.cols);
        else if (x.dtype == ND_I8)
            k->load_i8((float *)memory + at, (const int8_t *)x.data + at, 1.0f, x.cols);
        else
            k->load_bf16((float *)memory + at, (const uint16_t *)x.data + at, x.cols);
    }
    return nd_cview_of(memory, dtype, x.rows, x.cols);
}

size_t nd_fast_converted_bytes(nd_cview x, nd_dtype dtype)
{
    return x.dtype == dtype ? 0 : nd_fast_bytes(nd_view_count(x), nd_dtype_size(dtype));
}

nd_dtype nd_fast_product_dtype(const nd_cpu_fast *fast, bool bf16)
{
    return bf16 && nd_fast_multiplies_bf16(fast) ? ND_BF16 : ND_F32;
}

/* Multiplies codes, which are exact in bf16, and applies the scale to the result. Group scales
 * (rare) use f32 weights. */
static nd_status ternary_gemm_dx_onednn(nd_backend *b, nd_view dx, nd_cview dy, nd_cview c,
                                        nd_cview s, float beta)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    if (!nd_fast_covers(dx.dtype) || !nd_fast_covers(dy.dtype) || dy.cols == 0)
        return fast->reference.ternary_gemm_dx(b, dx, dy, c, s, beta);
    ND_REQUIRE(dx.rows == dy.rows && dx.cols == c.cols && dy.cols == c.rows);
    ND_REQUIRE(c.dtype == ND_I8 && nd_scales_fit(c, s));
    const bool single = nd_single_scale(s);
    const nd_dtype dtype = nd_fast_product_dtype(fast, dy.dtype == ND_BF16 && single);
    const size_t weight_bytes = nd_fast_converted_bytes(c, dtype);
    ND_TRY(nd_fast_grow(&fast->shared, weight_bytes + nd_fast_converted_bytes(dy, dtype)));
    nd_cview weight = nd_cview_of(fast->shared.memory, dtype, c.rows, c.cols);
    if (single)
        weight = nd_fast_as_dtype(fast, c, dtype, fast->shared.memory);
    else
        ND_TRY(b->ops.dequantize_codes(b, nd_view_of(fast->shared.memory, dtype, c.rows, c.cols), c,
                                       s));
    const blend_context context = {dx, single ? *(const float *)s.data : 1.0f, beta};
    const nd_product product = {
        .m = dy.rows,
        .n = c.cols,
        .k = c.rows,
        .a = nd_fast_as_dtype(fast, dy, dtype, (char *)fast->shared.memory + weight_bytes),
        .b = weight,
        .staged = ND_F32,
        .finish = finish_blend,
        .context = &context};
    return nd_fast_multiply(fast, &product);
}

/* dy a/127 in the product's dtype, [out / block][t][block]: each tile of dw reads dense memory. */
static void fold_activation_scale(nd_cpu_fast *fast, void *folded, nd_dtype dtype, nd_cview dy,
                                  const float *a, int64_t block)
{
    const nd_fast_kernels *k = fast->kernels;
    const int64_t blocks = nd_fast_ceil(dy.cols, block);
#pragma omp parallel for num_threads(fast->threads)
    for (int64_t t = 0; t < dy.rows; t++) {
        const float factor = (float)((double)a[t] / 127.0);
        float buffer[256];
        for (int64_t i = 0; i < blocks; i++) {
            const int64_t first = i * block, n = nd_fast_min(block, dy.cols - first);
            const nd_view out = nd_view_of(folded, dtype, 1, dy.rows * dy.cols);
            const int64_t at = first * dy.rows + t * n;
            const float *in = nd_fast_load(k, dy, t * dy.cols + first, n, buffer);
            float *target = nd_fast_target(out, at, buffer);
            k->scale(target, in, factor, n);
            nd_fast_store(k, out, at, n, target);
        }
    }
}

static nd_status ternary_gemm_dw_onednn(nd_backend *b, nd_view dw, nd_cview dy, nd_cview q,
                                        nd_cview a, float beta)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    if (dw.dtype != ND_F32 || !nd_fast_covers(dy.dtype) || dy.rows == 0)
        return fast->reference.ternary_gemm_dw(b, dw, dy, q, a, beta);
    ND_REQUIRE(q.dtype == ND_I8 && a.dtype == ND_F32 && a.rows == q.rows && dy.rows == q.rows);
    ND_REQUIRE(dw.rows == dy.cols && dw.cols == q.cols);
    /* Of fewer tokens in f32, since oneDNN 2.6 stops at 63 in bf16 (nd_fast_in_panels). */
    const nd_dtype dtype = nd_fast_product_dtype(fast, dy.dtype == ND_BF16 && dy.rows >= 64);
    const int64_t block = nd_fast_tile_rows(dw.rows);
    const size_t folded_bytes = nd_fast_bytes(nd_view_count(dy), nd_dtype_size(dtype));
    ND_TRY(nd_fast_grow(&fast->shared, folded_bytes + nd_fast_converted_bytes(q, dtype)));
    fold_activation_scale(fast, fast->shared.memory, dtype, dy, a.data, block);
    if (beta != 0.0f && beta != 1.0f)
        ND_TRY(b->ops.axpby(b, dw, 0.0f, nd_as_const(dw), beta));
    const nd_product product = {
        .m = dw.rows,
        .n = dw.cols,
        .k = dy.rows,
        .a = nd_cview_of(fast->shared.memory, dtype, dy.rows, dy.cols),
        .b = nd_fast_as_dtype(fast, q, dtype, (char *)fast->shared.memory + folded_bytes),
        .transpose_a = true,
        .blocked_a = block,
        .c = dw,
        .accumulate = beta != 0.0f};
    return nd_fast_multiply(fast, &product);
}

static nd_status gemm_onednn(nd_backend *b, nd_view c, nd_cview a, bool transpose_a, nd_cview bb,
                             bool transpose_b, float alpha, float beta)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    const int64_t inner = transpose_a ? a.rows : a.cols;
    if (!nd_fast_covers(c.dtype) || !nd_fast_covers(a.dtype) || !nd_fast_covers(bb.dtype) ||
        inner == 0)
        return fast->reference.gemm(b, c, a, transpose_a, bb, transpose_b, alpha, beta);
    ND_REQUIRE((transpose_a ? a.cols : a.rows) == c.rows);
    ND_REQUIRE((transpose_b ? bb.rows : bb.cols) == c.cols);
    ND_REQUIRE((transpose_b ? bb.cols : bb.rows) == inner);
    const nd_dtype dtype = nd_fast_product_dtype(fast, a.dtype == ND_BF16 || bb.dtype == ND_BF16);
    const size_t a_bytes = nd_fast_converted_bytes(a, dtype);
    ND_TRY(nd_fast_grow(&fast->shared, a_bytes + nd_fast_converted_bytes(bb, dtype)));
    const blend_context context = {c, alpha, beta};
    nd_product product = {
        .m = c.rows,
        .n = c.cols,
        .k = inner,
        .a = nd_fast_as_dtype(fast, a, dtype, fast->shared.memory),
        .b = nd_fast_as_dtype(fast, bb, dtype, (char *)fast->shared.memory + a_bytes),
        .transpose_a = transpose_a,
        .transpose_b = transpose_b,
        .staged = ND_F32,
        .finish = finish_blend,
        .context = &context};
    const bool plain = alpha == 1.0f && (beta == 0.0f || beta == 1.0f);
    if (plain && (c.dtype == ND_F32 || (dtype == ND_BF16 && beta == 0.0f))) {
        product.c = c;
        product.accumulate = beta != 0.0f;
    }
    return nd_fast_multiply(fast, &product);
}

void nd_fast_fill_products(nd_backend_ops *ops)
{
    ops->ternary_gemm = ternary_gemm_onednn;
    ops->ternary_gemm_dx = ternary_gemm_dx_onednn;
    ops->ternary_gemm_dw = ternary_gemm_dw_onednn;
    ops->gemm = gemm_onednn;
}
