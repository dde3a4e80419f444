/* The project's own products, for CPUs where they are faster than oneDNN's or where oneDNN's
 * products of 8-bit integers are not exact (AVX2 and AVX-512 without VNNI).
 *
 * c = a b with a cut into panels of rows and b into panels of columns, both packed so that a
 * microkernel reads them in order. With AVX2, where one operand is a ternary code, u8 code + 1
 * times s8 is summed in 16 bits and widened before it can overflow; other 8-bit integers are
 * widened to 16 bits first; f32 is multiplied as it is. VNNI multiplies u8 by s8, AMX 8-bit
 * integers and bf16 values, ARM's dot products s8 by s8. */
#pragma once

#include "core/backend/cpu/product.h"

/* One kind of product: how operands are packed and multiplied. `step` values of the inner dimension
 * lie together, each of `bytes`; the end is padded with zeros in both operands. */
typedef struct nd_panel_kind {
    int64_t rows, cols; /* of a panel of a, and of b; multiples divide the tiles of a product */
    int64_t step, bytes;
    int64_t block; /* inner values multiplied before the next panel, a multiple of step */
    /* A panel of a [k, rows], and of b [k, cols], elements (i, j) at i row_stride + j col_stride;
     * fewer rows or columns than the panel's, and k, are padded. pack_rows of integers has
     * row_stride = 1. May write into the 64 bytes after out. */
    void (*pack_rows)(void *out, const void *a, int64_t row_stride, int64_t col_stride,
                      int64_t rows, int64_t k);
    void (*pack_cols)(void *out, const void *b, int64_t row_stride, int64_t col_stride,
                      int64_t cols, int64_t k);
    /* c [rows, cols], i32 or f32, += a b over k (padded) inner values; rows of c are `stride`
     * apart. With `start`, c is not read, and row i of it starts at start[i]. */
    void (*multiply)(void *c, int64_t stride, const void *a, const void *b, int64_t k,
                     const int32_t *start);
    /* Where the sums of a row of a start, where b was packed with an offset. NULL: at 0. */
    int32_t (*start_of_row)(const int8_t *a, int64_t k);
    /* What each thread does before and after it multiplies; NULL: nothing. */
    void (*begin)(void);
    void (*end)(void);
} nd_panel_kind;

/* k, padded, and the bytes of a panel of `width` rows or columns over that many inner values. */
static inline int64_t nd_panel_padded(const nd_panel_kind *kind, int64_t k)
{
    return nd_fast_ceil(k, kind->step) * kind->step;
}

static inline int64_t nd_panel_bytes(const nd_panel_kind *kind, int64_t width, int64_t k)
{
    return width * nd_panel_padded(kind, k) * kind->bytes;
}

enum { ND_PANEL_WORDS, ND_PANEL_CODES, ND_PANEL_FLOATS, ND_PANEL_BF16, ND_PANEL_KINDS };

/* The kinds, some of which have no functions. NULL where the compiler's target lacks the
 * instructions, or the system does not allow them. */
const nd_panel_kind *nd_panel_kinds_avx2(void);
const nd_panel_kind *nd_panel_kinds_avx2_vnni(void);
const nd_panel_kind *nd_panel_kinds_avx512(void);
const nd_panel_kind *nd_panel_kinds_avx512_vnni(void);
const nd_panel_kind *nd_panel_kinds_amx(void);
const nd_panel_kind *nd_panel_kinds_dotprod(void);
/* The same for floats; NULL on CPUs with SVE, for which oneDNN has kernels. */
const nd_panel_kind *nd_panel_kinds_neon(void);

/* The kind for a product's operands, NULL when there is none. */
const nd_panel_kind *nd_panel_kind_of(const nd_cpu_fast *fast, const nd_product *p);

/* nd_fast_multiply_several for products of one kind with `finish` and, if of integers, a not
 * transposed. Errors: ND_ENOMEM. */
nd_status nd_panel_multiply(nd_cpu_fast *fast, const nd_product *p, int count);
