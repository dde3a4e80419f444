/* The project's own products, for CPUs where they are faster than oneDNN's or where, without VNNI,
 * oneDNN's products of 8-bit integers are not exact.
 *
 * c = a b with a cut into panels of 6 rows and b into panels of 16 columns, both packed so that a
 * microkernel reads them in order. Three kinds: where one operand is a ternary code, u8 code + 1
 * times s8 is summed in 16 bits and widened before it can overflow; other 8-bit integers are
 * widened to 16 bits first; f32 is multiplied as it is. */
#pragma once

#include "core/backend/cpu/product.h"

enum { ND_PANEL_ROWS = 6, ND_PANEL_COLS = 16 };

/* One kind of product: how operands are packed and multiplied. `step` values of the inner dimension
 * lie together, each of `bytes`; the end is padded with zeros in both operands. */
typedef struct nd_panel_kind {
    int64_t step, bytes;
    int64_t block; /* inner values multiplied before the next panel, a multiple of step */
    /* out [k / step][6][step] from a [k, rows], rows <= 6, and out [k / step][16][step] from b [k,
     * cols], cols <= 16, elements (i, j) at i row_stride + j col_stride; k is padded. pack_rows of
     * integers has row_stride = 1. May write into the 64 bytes after out. */
    void (*pack_rows)(void *out, const void *a, int64_t row_stride, int64_t col_stride,
                      int64_t rows, int64_t k);
    void (*pack_cols)(void *out, const void *b, int64_t row_stride, int64_t col_stride,
                      int64_t cols, int64_t k);
    /* c [6, 16], i32 or f32, += a b over k (padded) inner values; rows of c are `stride` apart. */
    void (*multiply)(void *c, int64_t stride, const void *a, const void *b, int64_t k);
    /* Where row i of c starts: for ternary codes, multiplied as code + 1, at minus the sum of row i
     * of a. NULL: at 0. */
    int32_t (*start_of_row)(const int8_t *a, int64_t k);
} nd_panel_kind;

enum { ND_PANEL_WORDS, ND_PANEL_CODES, ND_PANEL_FLOATS }; /* the kinds */

/* NULL where the compiler's target lacks AVX2. */
const nd_panel_kind *nd_panel_kinds_avx2(void);

/* nd_fast_multiply for i8 operands, a not transposed, or f32, and p->finish. Errors: ND_ENOMEM. */
nd_status nd_panel_multiply(nd_cpu_fast *fast, const nd_product *p);
