/* Int8 products: the project's own where the address of its result is unusual, and the choice
 * between it and the library's. What they compute is
 * in tests/core/test_backend_{products,int8}.c. */
#include "cuda/emulated_backend.h"
#include "support/support.h"

#include "core/base/float_formats.h"
#include "core/base/rng.h"

#include <stdio.h>
#include <stdlib.h>

void nd_emulated_make_mistake(int mistake); /* nd_emulated_mistake */

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
    ND_ASSERT_OK(nd_emulated_backend_create(&(nd_cuda_options){.int8 = ND_CUDA_INT8_OWN}, &b));
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

/* dx and dx += of random gradients, of shapes that cuBLASLt takes. */
static void backward(nd_backend *b, float dx[2][48 * 32])
{
    for (int shape = 0; shape < 2; shape++) {
        const int64_t tokens = shape ? 48 : 40, out = 64, in = 32;
        float dy[48 * 64], s[1] = {0.7f};
        int8_t c[64 * 32];
        nd_rng_normal_fill(nd_rng_key((uint64_t)shape, "dy"), 0, 1e-5f, dy, tokens * out);
        for (int i = 0; i < out * in; i++)
            c[i] = (int8_t)(i * 7 % 3 - 1);
        for (int call = 0; call < 3; call++) /* measured, known, and added */
            ND_ASSERT_OK(b->ops.ternary_gemm_dx_int8(
                b, nd_view_of(dx[shape], ND_F32, tokens, in), nd_cview_of(dy, ND_F32, tokens, out),
                nd_cview_of(c, ND_I8, out, in), nd_cview_of(s, ND_F32, 1, 1),
                call < 2 ? 0.0f : 1.0f));
    }
}

/* In the emulation the own kernel is the faster one every other time. */
Test(int8_product, whichever_kernel_was_faster_gives_the_same_bits)
{
    static float expected[2][48 * 32], got[2][48 * 32];
    nd_backend *b = NULL;
    ND_ASSERT_OK(
        nd_emulated_backend_create_checked(&(nd_cuda_options){.int8 = ND_CUDA_INT8_OWN}, &b));
    backward(b, expected);
    nd_backend_destroy(b);
    cr_assert_neq(expected[0][0], 0.0f);
    static const nd_cuda_int8 choices[] = {ND_CUDA_INT8_LIBRARY, ND_CUDA_INT8_FASTEST,
                                           ND_CUDA_INT8_FASTEST, ND_CUDA_INT8_MMA};
    for (int i = 0; i < 4; i++) {
        memset(got, 0xff, sizeof got);
        ND_ASSERT_OK(
            nd_emulated_backend_create_checked(&(nd_cuda_options){.int8 = choices[i]}, &b));
        backward(b, got);
        nd_backend_destroy(b);
        cr_assert_eq(memcmp(got[0], expected[0], 40 * 32 * sizeof(float)), 0, "%d", i);
        cr_assert_eq(memcmp(got[1], expected[1], 48 * 32 * sizeof(float)), 0, "%d", i);
    }
}

/* dx += alone, as of keys' and values' projections where queries have more heads. */
Test(int8_product, what_only_adds_is_measured_too)
{
    static float dx[2][40 * 32], dy[40 * 64];
    static const nd_cuda_int8 choices[] = {ND_CUDA_INT8_OWN, ND_CUDA_INT8_FASTEST};
    int8_t c[64 * 32];
    const float s[1] = {0.7f};
    char *said[2];
    nd_rng_normal_fill(nd_rng_key(0, "dy"), 0, 1e-5f, dy, 40 * 64);
    for (int i = 0; i < 64 * 32; i++)
        c[i] = (int8_t)(i * 7 % 3 - 1);
    for (int i = 0; i < 2; i++) {
        nd_log log = {0};
        nd_backend *b = NULL;
        size_t bytes;
        for (int j = 0; j < 40 * 32; j++)
            dx[i][j] = 1e-5f * (float)j;
        log.terminal = open_memstream(&said[i], &bytes);
        ND_ASSERT_OK(
            nd_emulated_backend_create_checked(&(nd_cuda_options){.int8 = choices[i]}, &b));
        b->log = &log;
        ND_ASSERT_OK(b->ops.ternary_gemm_dx_int8(
            b, nd_view_of(dx[i], ND_F32, 40, 32), nd_cview_of(dy, ND_F32, 40, 64),
            nd_cview_of(c, ND_I8, 64, 32), nd_cview_of(s, ND_F32, 1, 1), 1.0f));
        nd_backend_destroy(b);
        fclose(log.terminal);
    }
    cr_assert_not_null(strstr(said[1], "int8 product of 40 x 64 and 32 x 64"), "%s", said[1]);
    cr_assert_eq(memcmp(dx[0], dx[1], sizeof dx[0]), 0);
    free(said[0]);
    free(said[1]);
}

enum { WIDE_TOKENS = 136, WIDE_OUTPUTS = 264, WIDE_INPUTS = 144, DEEP_TOKENS = 2100 };

/* A product forward, and one of weights' gradients over blocks of tokens, both with edges
 * everywhere; *said is what the log was told, to be freed. */
static void multiply_both(nd_cuda_int8 choice, float *y, float *dw, char **said)
{
    nd_log log = {0};
    nd_backend *b = NULL;
    size_t bytes;
    int8_t *q = malloc((size_t)DEEP_TOKENS * WIDE_INPUTS),
           *c = malloc((size_t)WIDE_OUTPUTS * WIDE_INPUTS);
    float *a = malloc(sizeof(float) * DEEP_TOKENS),
          *dy = malloc(sizeof(float) * DEEP_TOKENS * WIDE_OUTPUTS);
    const float s[1] = {0.3f};
    for (int i = 0; i < DEEP_TOKENS * WIDE_INPUTS; i++)
        q[i] = (int8_t)(i * 31 + i / 7);
    for (int i = 0; i < WIDE_OUTPUTS * WIDE_INPUTS; i++)
        c[i] = (int8_t)(i * 7 % 3 - 1);
    for (int t = 0; t < DEEP_TOKENS; t++)
        a[t] = 0.01f * (float)(t % 50 + 1);
    nd_rng_normal_fill(nd_rng_key(1, "dy"), 0, 1e-5f, dy, (int64_t)DEEP_TOKENS * WIDE_OUTPUTS);
    log.terminal = open_memstream(said, &bytes);
    ND_ASSERT_OK(nd_emulated_backend_create(&(nd_cuda_options){.int8 = choice}, &b));
    b->log = &log;
    ND_ASSERT_OK(b->ops.ternary_gemm(
        b, nd_view_of(y, ND_F32, WIDE_TOKENS, WIDE_OUTPUTS),
        nd_cview_of(q, ND_I8, WIDE_TOKENS, WIDE_INPUTS), nd_cview_of(a, ND_F32, WIDE_TOKENS, 1),
        nd_cview_of(c, ND_I8, WIDE_OUTPUTS, WIDE_INPUTS), nd_cview_of(s, ND_F32, 1, 1)));
    ND_ASSERT_OK(b->ops.ternary_gemm_dw_int8(b, nd_view_of(dw, ND_F32, WIDE_OUTPUTS, WIDE_INPUTS),
                                             nd_cview_of(dy, ND_F32, DEEP_TOKENS, WIDE_OUTPUTS),
                                             nd_cview_of(q, ND_I8, DEEP_TOKENS, WIDE_INPUTS),
                                             nd_cview_of(a, ND_F32, DEEP_TOKENS, 1), 0.0f));
    nd_backend_destroy(b);
    fclose(log.terminal);
    free(q);
    free(c);
    free(a);
    free(dy);
}

/* A kernel that no device had run when it was written: it is used only where it was seen to be
 * exact. */
Test(int8_product, hopper_kernels_are_used_where_a_check_found_them_exact)
{
    static const char *const says[] = {"checked, the bits are those of mma.sync",
                                       "its results differ; mma.sync is used",
                                       "its operands did not arrive; mma.sync is used"};
    static float y[2][WIDE_TOKENS * WIDE_OUTPUTS], dw[2][WIDE_OUTPUTS * WIDE_INPUTS];
    char *said;
    multiply_both(ND_CUDA_INT8_MMA, y[0], dw[0], &said);
    cr_assert_null(strstr(said, "wgmma"));
    free(said);
    for (int mistake = 0; mistake < 3; mistake++) {
        nd_emulated_make_mistake(mistake);
        memset(y[1], 0xff, sizeof y[1]);
        memset(dw[1], 0xff, sizeof dw[1]);
        multiply_both(ND_CUDA_INT8_OWN, y[1], dw[1], &said);
        nd_emulated_make_mistake(0);
        cr_assert_not_null(strstr(said, says[mistake]), "%s", said);
        free(said);
        cr_assert_eq(memcmp(y[1], y[0], sizeof y[0]), 0, "mistake %d", mistake);
        cr_assert_eq(memcmp(dw[1], dw[0], sizeof dw[0]), 0, "mistake %d", mistake);
    }
}
