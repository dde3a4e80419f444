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

/* y [cols, rows] = xᵀ of values of `size` bytes; rows are y_stride and x_stride values apart. */
static inline void transpose_values(char *y, int64_t y_stride, const char *x, int64_t x_stride,
                                    int64_t rows, int64_t cols, size_t size)
{
    for (int64_t j = 0; j < cols; j++)
        for (int64_t i = 0; i < rows; i++)
            memcpy(y + (size_t)(j * y_stride + i) * size, x + (size_t)(i * x_stride + j) * size,
                   size);
}

/* The same for at most BLOCK rows and columns. */
static void transpose_block(const nd_fast_kernels *k, nd_dtype dtype, char *y, int64_t y_stride,
                            const char *x, int64_t x_stride, int64_t rows, int64_t cols)
{
    if (dtype == ND_F32)
        transpose_values(y, y_stride, x, x_stride, rows, cols, sizeof(float));
    else if (rows < BLOCK || cols < BLOCK)
        transpose_values(y, y_stride, x, x_stride, rows, cols, sizeof(uint16_t));
    else
        k->transpose_bf16((uint16_t *)(void *)y, y_stride, (const uint16_t *)(const void *)x,
                          x_stride);
}

/* Copies the part below the diagonal of c [n, n], at most BLOCK rows and columns, to above it. */
static void mirror_block(const nd_fast_kernels *k, nd_view c, int64_t row, int64_t rows,
                         int64_t col, int64_t cols)
{
    const int64_t n = c.cols;
    const size_t size = nd_dtype_size(c.dtype);
    char *data = c.data;
    if (col + cols <= row) {
        transpose_block(k, c.dtype, data + (size_t)(col * n + row) * size, n,
                        data + (size_t)(row * n + col) * size, n, rows, cols);
        return;
    }
    for (int64_t i = row; i < row + rows; i++)
        for (int64_t j = col; j < nd_fast_min(col + cols, i); j++)
            memcpy(data + (size_t)(j * n + i) * size, data + (size_t)(i * n + j) * size, size);
}

static void finish_symmetric(const nd_fast_kernels *k, const void *context, nd_tile tile)
{
    const symmetric_context *s = context;
    for (int64_t i = 0; i < tile.rows; i++)
        finish_row(k, s, tile, i);
    for (int64_t i = 0; i < tile.rows; i += BLOCK)
        for (int64_t j = 0; j < tile.cols; j += BLOCK)
            mirror_block(k, s->c, tile.row + i, nd_fast_min(BLOCK, tile.rows - i), tile.col + j,
                         nd_fast_min(BLOCK, tile.cols - j));
}

/* out [cols, rows] = inᵀ. */
static void transpose(const nd_cpu_fast *fast, char *out, nd_cview in)
{
    const size_t size = nd_dtype_size(in.dtype);
    const char *data = in.data;
#pragma omp parallel for num_threads(nd_fast_team(fast, nd_view_count(in))) collapse(2)
    for (int64_t i = 0; i < in.rows; i += BLOCK)
        for (int64_t j = 0; j < in.cols; j += BLOCK)
            transpose_block(fast->kernels, in.dtype, out + (size_t)(j * in.rows + i) * size,
                            in.rows, data + (size_t)(i * in.cols + j) * size, in.cols,
                            nd_fast_min(BLOCK, in.rows - i), nd_fast_min(BLOCK, in.cols - j));
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
    nd_product product = {.m = m,
                          .n = m,
                          .k = k,
                          .a = {.dtype = dtype},
                          .symmetric = true,
                          .staged = ND_F32,
                          .finish = finish_symmetric};
    /* Panels take either layout. */
    const bool transposed = transpose_a && !nd_fast_in_panels(fast, &product);
    const size_t copy_bytes = transposed ? nd_fast_bytes(m * k, nd_dtype_size(dtype)) : 0;
    ND_TRY(nd_fast_grow(&fast->shared,
                        nd_fast_converted_bytes(a, dtype) + copy_bytes +
                            (same ? 0 : nd_fast_converted_bytes(bb, dtype) + copy_bytes)));
    char *memory = fast->shared.memory;
    const symmetric_context context = {c, bb, alpha, beta, gamma};
    product.context = &context;
    product.a = operand(fast, a, dtype, transposed, &memory);
    product.transpose_a = transpose_a && !transposed;
    product.transpose_b = !transpose_a || transposed;
    product.b = same ? product.a : operand(fast, bb, dtype, transposed, &memory);
    return nd_fast_multiply(fast, &product);
}

void nd_fast_fill_symmetric(nd_backend_ops *ops)
{
    ops->gemm_symmetric = gemm_symmetric_fast;
}
