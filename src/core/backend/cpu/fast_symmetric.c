/* Symmetric products: tiles on or below the diagonal are computed and mirrored. */
#include "core/backend/cpu/fast_product.h"
#include "core/backend/cpu/op_families.h"

#include <string.h>

enum { BLOCK = 32 }; /* rows and columns transposed together */

typedef struct symmetric_context {
    nd_view c;
    nd_cview b;
    float alpha, beta, gamma;
} symmetric_context;

/* Row i of a tile, up to the diagonal: alpha product + beta b + gamma I, in the tile and in c. */
static void finish_row(const nd_fast_kernels *k, const symmetric_context *s, nd_tile tile,
                       int64_t i)
{
    const int64_t row = tile.row + i, at = row * s->c.cols + tile.col;
    const int64_t n = nd_fast_min(tile.cols, row + 1 - tile.col);
    float *values = (float *)tile.values + i * tile.stride, buffer[512];
    if (n <= 0)
        return;
    if (s->beta != 0.0f)
        k->axpby(values, s->beta, nd_fast_load(k, s->b, at, n, buffer), s->alpha, n);
    else
        k->scale(values, values, s->alpha, n);
    if (n == row + 1 - tile.col)
        values[n - 1] += s->gamma;
    if (s->c.dtype == ND_F32)
        memcpy((float *)s->c.data + at, values, (size_t)n * sizeof *values);
    else
        k->store_bf16((uint16_t *)s->c.data + at, values, n);
}

static void store_element(nd_view c, int64_t at, float value)
{
    if (c.dtype == ND_F32)
        ((float *)c.data)[at] = value;
    else
        ((uint16_t *)c.data)[at] = nd_bf16_from_float(value);
}

static void finish_symmetric(const nd_fast_kernels *k, const void *context, nd_tile tile)
{
    const symmetric_context *s = context;
    const float *values = tile.values;
    for (int64_t i = 0; i < tile.rows; i++)
        finish_row(k, s, tile, i);
    for (int64_t i0 = 0; i0 < tile.rows; i0 += BLOCK)
        for (int64_t j = 0; j < nd_fast_min(tile.cols, tile.row + i0 + BLOCK - tile.col); j++)
            for (int64_t i = nd_fast_max(i0, tile.col + j + 1 - tile.row);
                 i < nd_fast_min(i0 + BLOCK, tile.rows); i++)
                store_element(s->c, (tile.col + j) * s->c.cols + tile.row + i,
                              values[i * tile.stride + j]);
}

/* out [cols, rows] = inᵀ. */
static void transpose(const nd_cpu_fast *fast, void *out, nd_cview in)
{
#pragma omp parallel for num_threads(nd_fast_team(fast, nd_view_count(in))) collapse(2)
    for (int64_t r0 = 0; r0 < in.rows; r0 += BLOCK)
        for (int64_t c0 = 0; c0 < in.cols; c0 += BLOCK)
            for (int64_t c = c0; c < nd_fast_min(c0 + BLOCK, in.cols); c++)
                for (int64_t r = r0; r < nd_fast_min(r0 + BLOCK, in.rows); r++) {
                    if (in.dtype == ND_F32)
                        ((float *)out)[c * in.rows + r] = ((const float *)in.data)[r * in.cols + c];
                    else
                        ((uint16_t *)out)[c * in.rows + r] =
                            ((const uint16_t *)in.data)[r * in.cols + c];
                }
}

/* The operand in `dtype`, transposed if asked; takes memory from *memory. */
static nd_cview operand(nd_cpu_fast *fast, nd_cview x, nd_dtype dtype, bool transposed,
                        char **memory)
{
    const size_t converted = nd_fast_converted_bytes(x, dtype);
    x = nd_fast_as_dtype(fast, x, dtype, *memory);
    *memory += converted;
    if (!transposed)
        return x;
    transpose(fast, *memory, x);
    x = nd_cview_of(*memory, dtype, x.cols, x.rows);
    *memory += nd_fast_bytes(nd_view_count(x), nd_dtype_size(dtype));
    return x;
}

static nd_status gemm_symmetric_fast(nd_backend *b, nd_view c, nd_cview a, bool transpose_a,
                                     nd_cview bb, float alpha, float beta, float gamma)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    const int64_t m = transpose_a ? a.cols : a.rows, k = transpose_a ? a.rows : a.cols;
    if (!nd_fast_covers(a.dtype) || !nd_fast_covers(bb.dtype) || !nd_fast_covers(c.dtype) || k == 0)
        return fast->reference.gemm_symmetric(b, c, a, transpose_a, bb, alpha, beta, gamma);
    ND_REQUIRE(c.rows == m && c.cols == m && nd_same_shape(a, bb) && (beta == 0.0f || m == k));
    const nd_dtype dtype = nd_fast_product_dtype(fast, a.dtype == ND_BF16 || bb.dtype == ND_BF16);
    const bool same = a.data == bb.data && a.dtype == bb.dtype;
    /* Panels take either layout. */
    const bool transposed = transpose_a && fast->isa != ND_CPU_ISA_AVX2;
    const size_t copy_bytes = transposed ? nd_fast_bytes(m * k, nd_dtype_size(dtype)) : 0;
    ND_TRY(nd_fast_grow(&fast->shared,
                        nd_fast_converted_bytes(a, dtype) + copy_bytes +
                            (same ? 0 : nd_fast_converted_bytes(bb, dtype) + copy_bytes)));
    char *memory = fast->shared.memory;
    const symmetric_context context = {c, bb, alpha, beta, gamma};
    nd_product product = {.m = m,
                          .n = m,
                          .k = k,
                          .a = operand(fast, a, dtype, transposed, &memory),
                          .symmetric = true,
                          .transpose_a = transpose_a && !transposed,
                          .transpose_b = !transpose_a || transposed,
                          .staged = ND_F32,
                          .finish = finish_symmetric,
                          .context = &context};
    product.b = same ? product.a : operand(fast, bb, dtype, transposed, &memory);
    return nd_fast_multiply(fast, &product);
}

void nd_fast_fill_symmetric(nd_backend_ops *ops)
{
    ops->gemm_symmetric = gemm_symmetric_fast;
}
