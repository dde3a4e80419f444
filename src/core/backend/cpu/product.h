/* A large product, computed in tiles by fast_product.c or panel_product.c. */
#pragma once

#include "core/backend/cpu/fast_context.h"

/* A finished tile: rows [row, row + rows) and columns [col, col + cols) of c, rows of `values` (f32
 * or i32) `stride` elements apart. */
typedef struct nd_tile {
    int64_t row, rows, col, cols, stride;
    void *values;
} nd_tile;

typedef void (*nd_tile_finish)(const nd_fast_kernels *kernels, const void *context, nd_tile tile);

/* The address of element `index` of v. */
static inline const char *nd_element_at(nd_cview v, int64_t index)
{
    return (const char *)v.data + (size_t)index * nd_dtype_size(v.dtype);
}

/* c = op(a) op(b), c [m, n]. The product goes to `c` (added to it when `accumulate`) if only c.data
 * is set, or tile by tile to `finish` if only that is; if both are, either may be used. */
typedef struct nd_product {
    int64_t m, n, k;
    nd_cview a, b; /* as stored, f32, bf16 or i8 */
    bool ternary;  /* one of two i8 operands holds -1, 0 and 1 only */
    bool transpose_a, transpose_b;
    bool symmetric;    /* c is symmetric: only tiles on or below the diagonal are needed */
    int64_t blocked_a; /* > 0: transposed a is stored as [m / blocked_a][k][blocked_a] */
    nd_view c;
    bool accumulate;
    nd_dtype staged; /* dtype of the tiles given to finish */
    bool in_floats;  /* set by nd_fast_multiply: a and b hold integers, and finish takes i32 */
    nd_tile_finish finish;
    const void *context;
} nd_product;
