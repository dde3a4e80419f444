/* Shared by the reference layer: element access over any dtype, and the contract's shape checks. */
#ifndef ND_CORE_CPU_REFERENCE_H
#define ND_CORE_CPU_REFERENCE_H

#include "core/backend.h"
#include "core/float_formats.h"

/* Stops an op whose arguments break the contract. */
#define ND_REQUIRE(condition)                                                                      \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return ND_FAIL(ND_EINTERNAL, "%s: needs %s", __func__, #condition);                    \
    } while (0)

static inline bool nd_is_float(nd_dtype dtype)
{
    return dtype == ND_F64 || dtype == ND_F32 || dtype == ND_BF16;
}

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

/* That `tokens` are `rows` values in [lowest, vocab). Errors: ND_EINTERNAL naming the position. */
nd_status nd_check_tokens(nd_cview tokens, int64_t rows, int64_t vocab, int32_t lowest);

/* Each fills the slots of one op family. */
void nd_reference_fill_ternary(nd_backend_ops *ops);
void nd_reference_fill_rows(nd_backend_ops *ops);
void nd_reference_fill_swiglu(nd_backend_ops *ops);
void nd_reference_fill_attention(nd_backend_ops *ops);
void nd_reference_fill_loss(nd_backend_ops *ops);
void nd_reference_fill_updates(nd_backend_ops *ops);

#endif
