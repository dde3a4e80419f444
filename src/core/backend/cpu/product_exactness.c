#include "core/backend/cpu/product_exactness.h"

#include "core/backend/cpu/fast_matmul.h"
#include "core/backend/cpu/fast_product.h"

#include <stdlib.h>

/* A whole tile and a remainder in each direction, and an odd inner dimension: a block of tokens
 * less one. Every rank runs this at its start, so rows and columns repeat after KINDS to have few
 * distinct sums. */
enum { ROWS = 67, COLS = 49, INNER = ND_INT8_TOKENS - 1, KINDS = 8 };

typedef struct operands {
    int8_t a[ROWS * INNER], b[INNER * COLS];
    int32_t c[ROWS * COLS];
} operands;

static void keep_sums(const nd_fast_kernels *k, const void *context, nd_tile tile)
{
    (void)k;
    int32_t *c = ((operands *)(uintptr_t)context)->c;
    for (int64_t i = 0; i < tile.rows; i++)
        for (int64_t j = 0; j < tile.cols; j++)
            c[(tile.row + i) * COLS + tile.col + j] = ((int32_t *)tile.values)[i * tile.stride + j];
}

/* The extreme values in all pairs of signs: `pattern` 0 has one sign, 1 alternates along the sums,
 * 2 mixes all. Codes are -1 and 1. */
static int8_t extreme(int pattern, int64_t row, int64_t position, bool code)
{
    const int64_t index = row % KINDS;
    const bool negative = pattern == 0 ? index % 2
                          : pattern == 1
                              ? (index + position) % 2
                              : (uint32_t)(index * 31 + position * 17) * 2654435761u >> 31;
    return code ? (negative ? -1 : 1) : (negative ? -128 : 127);
}

static bool sums_are_right(const operands *o, bool transpose_b)
{
    int32_t sums[KINDS][KINDS] = {{0}};
    for (int64_t i = 0; i < KINDS; i++)
        for (int64_t j = 0; j < KINDS; j++)
            for (int64_t l = 0; l < INNER; l++)
                sums[i][j] +=
                    o->a[i * INNER + l] * o->b[transpose_b ? j * INNER + l : l * COLS + j];
    for (int64_t i = 0; i < ROWS; i++)
        for (int64_t j = 0; j < COLS; j++)
            if (sums[i % KINDS][j % KINDS] != o->c[i * COLS + j])
                return false;
    return true;
}

static nd_status check(nd_cpu_fast *fast, operands *o, bool ternary, bool transpose_b, bool *exact)
{
    const nd_product product = {
        .m = ROWS,
        .n = COLS,
        .k = INNER,
        .a = nd_cview_of(o->a, ND_I8, ROWS, INNER),
        .b = transpose_b ? nd_cview_of(o->b, ND_I8, COLS, INNER)
                         : nd_cview_of(o->b, ND_I8, INNER, COLS),
        .ternary = ternary,
        .transpose_b = transpose_b,
        .staged = ND_I32,
        .finish = keep_sums,
        .context = o,
    };
    for (int pattern = 0; pattern < 3 && *exact; pattern++) {
        for (int64_t i = 0; i < ROWS * INNER; i++)
            o->a[i] = extreme(pattern, i / INNER, i % INNER, false);
        for (int64_t i = 0; i < INNER * COLS; i++)
            o->b[i] = transpose_b ? extreme(pattern, i / INNER, i % INNER, ternary)
                                  : extreme(pattern, i % COLS, i / COLS, ternary);
        ND_TRY(nd_fast_multiply(fast, &product));
        *exact = sums_are_right(o, transpose_b);
    }
    return ND_OK;
}

nd_status nd_fast_check_products(nd_cpu_fast *fast)
{
    nd_fast_arena private[1] = {{0}};
    nd_cpu_fast probe = {.isa = fast->isa,
                         .kernels = fast->kernels,
                         .threads = 1,
                         .panels = fast->panels,
                         .exact_ternary = true, /* no products in floats instead */
                         .exact_int8 = true,
                         .private = private};
    bool exact[2] = {true, true};
    ND_AUTOFREE operands *o = malloc(sizeof *o);
    ND_FAIL_IF(!o, ND_ENOMEM, "no memory to check products");
    nd_status status = nd_matmul_cache_create(1, NULL, &probe.matmuls);
    /* With VNNI oneDNN multiplies few rows, whatever panels do with many. */
    const int checks = fast->panels && fast->isa >= ND_CPU_ISA_AVX512_VNNI ? 8 : 4;
    for (int i = 0; status == ND_OK && i < checks; i++) {
        if (i == 4)
            probe.panels = NULL;
        status = check(&probe, o, i % 2, i / 2 % 2, &exact[i % 2]);
    }
    fast->exact_int8 = exact[0];
    fast->exact_ternary = exact[1];
    nd_matmul_cache_destroy(probe.matmuls);
    free(private[0].memory);
    free(probe.packed.memory);
    return status;
}
