/* The project's own int8 product where only the address of its result is unusual; what it computes is in
 * tests/core/test_backend_products.c. */
#include "cuda/emulated_backend.h"
#include "support/support.h"

#include "core/float_formats.h"

enum { TOKENS = 3, OUTPUTS = 18, INPUTS = 32 };

/* y of ones times ones, scaled by 1: INPUTS everywhere. */
static void multiply(nd_backend *b, uint16_t *y)
{
    static int8_t q[TOKENS * INPUTS], c[OUTPUTS * INPUTS];
    static float a[TOKENS], s[1] = {1.0f};
    memset(q, 1, sizeof q);
    memset(c, 1, sizeof c);
    for (int t = 0; t < TOKENS; t++)
        a[t] = 127.0f;
    ND_ASSERT_OK(b->ops.ternary_gemm(
        b, nd_view_of(y, ND_BF16, TOKENS, OUTPUTS), nd_cview_of(q, ND_I8, TOKENS, INPUTS),
        nd_cview_of(a, ND_F32, TOKENS, 1), nd_cview_of(c, ND_I8, OUTPUTS, INPUTS),
        nd_cview_of(s, ND_F32, 1, 1)));
}

/* A GPU stores four bytes at multiples of four only; under sanitizers the emulation does too. */
Test(int8_product, stores_a_result_that_begins_at_an_odd_element)
{
    _Alignas(16) static uint16_t memory[1 + TOKENS * OUTPUTS + 1];
    nd_backend *b = NULL;
    ND_ASSERT_OK(nd_emulated_backend_create(&(nd_cuda_options){.own_int8 = true}, &b));
    for (int first = 0; first < 2; first++) {
        memset(memory, 0, sizeof memory);
        multiply(b, memory + first);
        for (int i = 0; i < 1 + TOKENS * OUTPUTS + 1; i++) {
            const bool inside = i >= first && i < first + TOKENS * OUTPUTS;
            cr_assert_eq(nd_bf16_to_float(memory[i]), inside ? (float)INPUTS : 0.0f, "element %d",
                         i);
        }
    }
    nd_backend_destroy(b);
}
