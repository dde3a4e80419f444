/* Exact products of 8-bit integers for CPUs without VNNI, where oneDNN's either saturate or are slow.
 *
 * c = a b with a cut into panels of 6 rows and b into panels of 16 columns, both packed so that a
 * microkernel reads them in order. Two kinds: where one operand is a ternary code, u8 code + 1 times s8
 * is summed in 16 bits and widened before it can overflow; otherwise both operands are widened to 16
 * bits first. */
#pragma once

#include "core/backend/cpu/product.h"

enum { ND_INTEGER_ROWS = 6, ND_INTEGER_COLS = 16 };

/* One kind of product: how operands are packed and multiplied. `step` values of the inner dimension lie
 * together, each of `bytes`; what is missing at the end is 0 in both operands. */
typedef struct nd_integer_kind {
    int64_t step, bytes;
    int64_t block; /* inner values multiplied before the next panel, a multiple of step */
    /* out [k / step][6][step] from rows of `stride` elements, of which `rows` exist; k is padded. */
    void (*pack_rows)(void *out, const int8_t *a, int64_t stride, int64_t rows, int64_t k);
    /* out [k / step][16][step] from b [k, cols], cols <= 16, elements (i, j) at i down + j across. */
    void (*pack_cols)(void *out, const int8_t *b, int64_t down, int64_t across, int64_t cols,
                      int64_t k);
    /* c [6, 16] += a b over k (padded) inner values; rows of c are `stride` apart. */
    void (*multiply)(int32_t *c, int64_t stride, const void *a, const void *b, int64_t k);
    /* What must be added to row i of c: for ternary codes minus the sum of its k values. */
    int32_t (*start_of_row)(const int8_t *a, int64_t k);
} nd_integer_kind;

/* [ternary]; NULL where the compiler's target lacks AVX2. */
const nd_integer_kind *nd_integer_kinds_avx2(void);

/* nd_fast_multiply for i8 operands and p->finish, a not transposed. Errors: ND_ENOMEM. */
nd_status nd_integer_multiply(nd_cpu_fast *fast, const nd_product *p);
