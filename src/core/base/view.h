/* Views: what an op sees of a tensor. Row-major, contiguous, two-dimensional; a vector is one row.
 * A view owns nothing. The memory belongs to the backend whose ops it is passed to. */
#pragma once

#include <stddef.h>
#include <stdint.h>

typedef enum nd_dtype {
    ND_F64,
    ND_F32,
    ND_BF16,
    ND_I32,
    ND_I8,
    ND_U8,
} nd_dtype;

typedef struct nd_view {
    void *data;
    nd_dtype dtype;
    int64_t rows;
    int64_t cols;
} nd_view;

typedef struct nd_cview {
    const void *data;
    nd_dtype dtype;
    int64_t rows;
    int64_t cols;
} nd_cview;

static inline size_t nd_dtype_size(nd_dtype dtype)
{
    switch (dtype) {
    case ND_F64:
        return 8;
    case ND_F32:
    case ND_I32:
        return 4;
    case ND_BF16:
        return 2;
    case ND_I8:
    case ND_U8:
        break;
    }
    return 1;
}

/* The type that sums and statistics of values of this compute type are kept in. */
static inline nd_dtype nd_dtype_wide(nd_dtype compute)
{
    return compute == ND_F64 ? ND_F64 : ND_F32;
}

static inline const char *nd_dtype_name(nd_dtype dtype)
{
    static const char *const names[] = {"f64", "f32", "bf16", "i32", "i8", "u8"};
    return names[dtype];
}

/* A view [rows, cols] of the caller's memory. */
static inline nd_view nd_view_of(void *data, nd_dtype dtype, int64_t rows, int64_t cols)
{
    return (nd_view){data, dtype, rows, cols};
}

/* The memory of a view with another shape. */
static inline nd_view nd_view_shaped(nd_view v, int64_t rows, int64_t cols)
{
    return (nd_view){v.data, v.dtype, rows, cols};
}

static inline nd_cview nd_cview_of(const void *data, nd_dtype dtype, int64_t rows, int64_t cols)
{
    return (nd_cview){data, dtype, rows, cols};
}

/* The same memory, read-only. */
static inline nd_cview nd_as_const(nd_view v)
{
    return (nd_cview){v.data, v.dtype, v.rows, v.cols};
}

static inline int64_t nd_view_count(nd_cview v)
{
    return v.rows * v.cols;
}

static inline size_t nd_view_bytes(nd_cview v)
{
    return (size_t)nd_view_count(v) * nd_dtype_size(v.dtype);
}

static inline int64_t nd_larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Rows [first, first + count) of a view. */
static inline nd_view nd_view_rows(nd_view v, int64_t first, int64_t count)
{
    char *base = (char *)v.data;
    return (nd_view){base + (size_t)(first * v.cols) * nd_dtype_size(v.dtype), v.dtype, count,
                     v.cols};
}

/* The memory (u8) from the start of `first` to the end of `last` in the same allocation. */
static inline nd_view nd_view_span(nd_view first, nd_view last)
{
    const int64_t before = (char *)last.data - (char *)first.data;
    return (nd_view){first.data, ND_U8, 1, before + (int64_t)nd_view_bytes(nd_as_const(last))};
}

static inline nd_cview nd_cview_rows(nd_cview v, int64_t first, int64_t count)
{
    const char *base = (const char *)v.data;
    return (nd_cview){base + (size_t)(first * v.cols) * nd_dtype_size(v.dtype), v.dtype, count,
                      v.cols};
}
