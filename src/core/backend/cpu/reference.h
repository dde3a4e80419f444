/* Shared by the reference layer: element access for any dtype, and checks of the contract. */
#pragma once

#include "core/backend/backend.h"
#include "core/base/float_formats.h"

/* Fails an op whose arguments violate the contract. */
#define ND_REQUIRE(condition)                                                                      \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return ND_FAIL(ND_EINTERNAL, "%s: needs %s", __func__, #condition);                    \
    } while (0)

static inline bool nd_is_float(nd_dtype dtype)
{
    return dtype == ND_F64 || dtype == ND_F32 || dtype == ND_BF16;
}

/* Fails an op unless all of these dtypes are float. */
#define ND_REQUIRE_FLOATS(...)                                                                     \
    do {                                                                                           \
        const nd_dtype nd_dtypes_[] = {__VA_ARGS__};                                               \
        for (size_t nd_i_ = 0; nd_i_ < sizeof nd_dtypes_ / sizeof *nd_dtypes_; nd_i_++)            \
            if (!nd_is_float(nd_dtypes_[nd_i_]))                                                   \
                return ND_FAIL(ND_EINTERNAL, "%s: needs floats, not %s, for %s", __func__,         \
                               nd_dtype_name(nd_dtypes_[nd_i_]), #__VA_ARGS__);                    \
    } while (0)

static inline bool nd_same_shape(nd_cview a, nd_cview b)
{
    return a.rows == b.rows && a.cols == b.cols;
}

static inline double nd_load(nd_cview v, int64_t i)
{
    switch (v.dtype) {
    case ND_F64:
        return ((const double *)v.data)[i];
    case ND_F32:
        return ((const float *)v.data)[i];
    case ND_BF16:
        return nd_bf16_to_float(((const uint16_t *)v.data)[i]);
    case ND_I32:
        return ((const int32_t *)v.data)[i];
    case ND_I8:
        return ((const int8_t *)v.data)[i];
    case ND_U8:
        break;
    }
    return ((const uint8_t *)v.data)[i];
}

/* Float dtypes only. */
static inline void nd_store(nd_view v, int64_t i, double x)
{
    if (v.dtype == ND_F64)
        ((double *)v.data)[i] = x;
    else if (v.dtype == ND_F32)
        ((float *)v.data)[i] = (float)x;
    else
        ((uint16_t *)v.data)[i] = nd_bf16_from_float((float)x);
}

/* x[at] = beta x[at] + value; with beta 0 x is not read. */
static inline void nd_accumulate(nd_view x, int64_t at, double value, float beta)
{
    nd_store(x, at, beta == 0.0f ? value : beta * nd_load(nd_as_const(x), at) + value);
}

/* Scales of a ternary matrix are [1, 1] or [out, in/g]. */
static inline bool nd_single_scale(nd_cview scales)
{
    return scales.rows == 1 && scales.cols == 1;
}

static inline bool nd_scales_fit(nd_cview codes, nd_cview scales)
{
    return scales.dtype == ND_F32 &&
           ((nd_single_scale(scales) && nd_view_count(codes) > 0) ||
            (scales.rows == codes.rows && scales.cols > 0 && codes.cols % scales.cols == 0));
}

/* Checks for `rows` tokens in [lowest, vocab). Errors: ND_EINTERNAL naming the position. */
nd_status nd_check_tokens(nd_cview tokens, int64_t rows, int64_t vocab, int32_t lowest);

/* Whether codes and scales have room for `count` elements. */
static inline bool nd_blocks_hold(const nd_blocks *q, int64_t count)
{
    const nd_dtype dtype = q->code == ND_BLOCK_LINEAR ? ND_I8 : ND_U8;
    return q->block > 0 && q->codes.dtype == dtype && q->scales.dtype == ND_F32 &&
           nd_view_count(nd_as_const(q->codes)) == count &&
           nd_view_count(nd_as_const(q->scales)) == (count + q->block - 1) / q->block;
}

static inline bool nd_adamw_blocks_fit(const nd_blocks *m, const nd_blocks *v, int64_t count)
{
    return nd_blocks_hold(m, count) && nd_blocks_hold(v, count) && m->block == v->block &&
           m->block % 4 == 0 && m->block <= ND_ADAMW_BLOCK_MAX && m->code == ND_BLOCK_DYNAMIC &&
           v->code == ND_BLOCK_DYNAMIC_UNSIGNED;
}

static inline bool nd_tiles_hold(const nd_tiles *q, nd_cview x)
{
    const int64_t tile_rows = (x.rows + ND_TILE - 1) / ND_TILE;
    const int64_t tile_cols = (x.cols + ND_TILE - 1) / ND_TILE;
    return q->codes.dtype == ND_U8 && q->row_max.dtype == ND_BF16 &&
           q->column_max.dtype == ND_BF16 && q->codes.rows == x.rows &&
           q->codes.cols == (x.cols + 1) / 2 && q->row_max.rows == x.rows &&
           q->row_max.cols == tile_cols && q->column_max.rows == tile_rows &&
           q->column_max.cols == x.cols;
}

/* numerator / scale; 0 for a scale that is not finite or below 2^-100, where it could overflow. */
static inline float nd_state_factor(float numerator, float scale)
{
    const bool usable = scale >= 0x1p-100f && scale <= 3.402823466e38f;
    return usable ? numerator / scale : 0.0f;
}

/* AdamW of elements [first, first + n) of w and g; m and v, in double, are those elements only. */
void nd_reference_adamw(nd_view w, int64_t first, int64_t n, double *m, double *v, nd_cview g,
                        const nd_adamw_params *params);

/* Checks the views of cross_entropy, whose gradient goes to `out`. Errors: ND_EINTERNAL. */
nd_status nd_cross_entropy_check(nd_view nll, nd_view total, nd_view logits, nd_view out,
                                 nd_cview targets, const nd_cross_entropy_params *params);

/* Checks the views of attention against the shape. Errors: ND_EINTERNAL. */
nd_status nd_attention_check(nd_cview q, nd_cview k, nd_cview v, const nd_attention_shape *shape);

/* A part of gather_rows: rows [first, end) of y, of each the bytes [from, from + count). */
typedef struct nd_gather_part {
    int64_t first, end;
    size_t from, count;
} nd_gather_part;

void nd_gather_rows_part(nd_view y, nd_cview x, nd_cview rows, nd_gather_part part);
