/* The backward products with gradients in 8 bits, against the reference and what they stand for. */
#include "core/conformance.h"

static const double EXACT_F32 = 1e-6, EXACT_BF16 = 4e-3;

/* tokens, outputs, inputs: one and several blocks of tokens, panels and words that end early, and
 * products of few rows at which oneDNN 2.6 stops with AMX */
static const int64_t shapes[][3] = {{1, 1, 1},      {1, 300, 64},   {70, 65, 33},   {64, 1, 96},
                                    {2, 5, 1000},   {130, 257, 32}, {300, 128, 96}, {300, 64, 65},
                                    {1024, 16, 32}, {1100, 70, 35}, {2049, 66, 48}, {2060, 72, 48},
                                    {5130, 20, 24}, {5, 127, 80},   {126, 17, 80}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

typedef struct inputs {
    nd_cview dy, q, a, c, s;
} inputs;

/* Gradients of very different sizes: by token and by output. */
static inputs random_inputs(harness *h, nd_dtype dy_type, const int64_t *shape)
{
    const int64_t tokens = shape[0], out = shape[1], in = shape[2];
    const nd_view dy = random_floats(h, dy_type, tokens, out, 1e-6f);
    for (int64_t i = 0; i < tokens * out; i++)
        set_element(dy, i,
                    nd_load(nd_as_const(dy), i) * exp2((double)(i / out % 7)) *
                        exp2(-(double)(i % out % 5)));
    return (inputs){nd_as_const(dy), nd_as_const(random_integers(h, ND_I8, tokens, in, -128, 127)),
                    nd_as_const(random_scales(h, tokens, 1)),
                    nd_as_const(random_integers(h, ND_I8, out, in, -1, 1)),
                    nd_as_const(random_scales(h, 1, 1))};
}

static void check_int8(harness *h, const inputs *x, nd_dtype dx_type)
{
    const int64_t tokens = x->dy.rows, out = x->dy.cols, in = x->q.cols;
    const double tolerance = dx_type == ND_BF16 ? EXACT_BF16 : EXACT_F32;
    const outputs dx = poisoned_outputs(h, ND_F64, dx_type, tokens, in);
    RUN(h, ternary_gemm_dx_int8, dx.view[i], x->dy, x->c, x->s, 0.0f);
    check_close(h, "ternary_gemm_dx_int8", &dx, tolerance);
    const nd_cview start = nd_as_const(random_floats(h, dx_type, tokens, in, 1e-5f));
    const outputs dx_sum = copied_outputs(h, ND_F64, start);
    RUN(h, ternary_gemm_dx_int8, dx_sum.view[i], x->dy, x->c, x->s, 1.0f);
    check_close(h, "ternary_gemm_dx_int8 +=", &dx_sum, tolerance);
    const outputs dw = poisoned_outputs(h, ND_F64, ND_F32, out, in);
    RUN(h, ternary_gemm_dw_int8, dw.view[i], x->dy, x->q, x->a, 0.0f);
    check_close(h, "ternary_gemm_dw_int8", &dw, EXACT_F32);
    RUN(h, ternary_gemm_dw_int8, dw.view[i], x->dy, x->q, x->a, 1.0f);
    check_close(h, "ternary_gemm_dw_int8 +=", &dw, EXACT_F32);
}

Test(int8, backward_products_agree_with_the_reference)
{
    harness h;
    harness_open(&h);
    for (int s = 0; s < SHAPES; s++)
        for (int mix = 0; mix < 4; mix++) {
            const inputs x = random_inputs(&h, float_dtypes[mix & 1], shapes[s]);
            check_int8(&h, &x, float_dtypes[mix >> 1]);
            harness_reset(&h);
        }
    harness_close(&h);
}

/* Tiles of 192 rows and 512 columns, and a result of 2 MiB in bf16, which may be written past the
 * caches: some rows start at a multiple of 64 bytes. */
Test(int8, backward_products_of_several_tiles_agree_with_the_reference)
{
    static const int64_t large[][3] = {{200, 600, 530}, {1024, 20, 1032}};
    harness h;
    if (on_device) /* which has other tiles */
        return;
    harness_open(&h);
    for (int s = 0; s < 2; s++)
        for (int mix = 0; mix < 2; mix++) {
            const inputs x = random_inputs(&h, float_dtypes[mix], large[s]);
            check_int8(&h, &x, float_dtypes[mix]);
            harness_reset(&h);
        }
    harness_close(&h);
}

/* Codes err by at most half a step of 1/127 of the largest gradient. */
Test(int8, backward_products_are_near_those_of_whole_gradients)
{
    harness h;
    harness_open(&h);
    const int64_t shape[3] = {2049, 130, 67};
    inputs x = random_inputs(&h, ND_F32, shape);
    x.dy = nd_as_const(random_floats(&h, ND_F32, shape[0], shape[1], 1e-6f));
    nd_backend *b = h.backend[1];
    const nd_view dx[2] = {poisoned(&h, ND_F32, shape[0], shape[2]),
                           poisoned(&h, ND_F32, shape[0], shape[2])};
    const nd_view dw[2] = {poisoned(&h, ND_F32, shape[1], shape[2]),
                           poisoned(&h, ND_F32, shape[1], shape[2])};
    ND_ASSERT_OK(b->ops.ternary_gemm_dx(b, dx[0], x.dy, x.c, x.s, 0.0f));
    ND_ASSERT_OK(b->ops.ternary_gemm_dx_int8(b, dx[1], x.dy, x.c, x.s, 0.0f));
    ND_ASSERT_OK(b->ops.ternary_gemm_dw(b, dw[0], x.dy, x.q, x.a, 0.0f));
    ND_ASSERT_OK(b->ops.ternary_gemm_dw_int8(b, dw[1], x.dy, x.q, x.a, 0.0f));
    const double dx_error = relative_error(nd_as_const(dx[1]), nd_as_const(dx[0]));
    const double dw_error = relative_error(nd_as_const(dw[1]), nd_as_const(dw[0]));
    cr_assert(dx_error > 1e-4 && dx_error < 0.01, "dx is off by %.3g", dx_error);
    cr_assert(dw_error > 1e-4 && dw_error < 0.02, "dw is off by %.3g", dw_error);
    harness_close(&h);
}

/* A step whose gradients are not finite is skipped, so it must be seen. */
Test(int8, gradients_that_are_not_finite_stay_so)
{
    harness h;
    harness_open(&h);
    const double bad[] = {NAN, -INFINITY, INFINITY};
    for (int kind = 0; kind < 3; kind++) {
        const int64_t shape[3] = {1030, 70, 33};
        const inputs x = random_inputs(&h, float_dtypes[kind % 2], shape);
        const nd_view dy = {(void *)(uintptr_t)x.dy.data, x.dy.dtype, x.dy.rows, x.dy.cols};
        set_element(dy, 1027 * 70 + 66, bad[kind]);
        for (int i = 0; i < BACKENDS; i++) {
            nd_backend *b = h.backend[i];
            const nd_view dx = poisoned(&h, ND_F32, 1030, 33);
            const nd_view dw = poisoned(&h, ND_F32, 70, 33);
            ND_ASSERT_OK(b->ops.ternary_gemm_dx_int8(b, dx, x.dy, x.c, x.s, 0.0f));
            ND_ASSERT_OK(b->ops.ternary_gemm_dw_int8(b, dw, x.dy, x.q, x.a, 0.0f));
            for (int64_t t = 0; t < 1030; t++)
                cr_assert_eq(isfinite(nd_load(nd_as_const(dx), t * 33)) != 0, t != 1027);
            for (int64_t o = 0; o < 70; o++)
                cr_assert_eq(isfinite(nd_load(nd_as_const(dw), o * 33)) != 0, o != 66);
        }
        harness_reset(&h);
    }
    harness_close(&h);
}

Test(int8, tokens_without_a_gradient_give_none)
{
    harness h;
    harness_open(&h);
    const int64_t shape[3] = {3, 70, 33};
    const inputs x = random_inputs(&h, ND_F32, shape);
    const nd_view dy = {(void *)(uintptr_t)x.dy.data, ND_F32, 3, 70};
    for (int64_t i = 0; i < 3 * 70; i++)
        set_element(dy, i, i < 70 ? 0.0 : i < 140 ? 1e-38 : -0.0);
    for (int i = 0; i < BACKENDS; i++) {
        nd_backend *b = h.backend[i];
        const nd_view dx = poisoned(&h, ND_F32, 3, 33), dw = poisoned(&h, ND_F32, 70, 33);
        ND_ASSERT_OK(b->ops.ternary_gemm_dx_int8(b, dx, x.dy, x.c, x.s, 0.0f));
        ND_ASSERT_OK(b->ops.ternary_gemm_dw_int8(b, dw, x.dy, x.q, x.a, 0.0f));
        for (int64_t j = 0; j < 3 * 33; j++)
            cr_assert_eq(nd_load(nd_as_const(dx), j), 0.0);
        for (int64_t j = 0; j < 70 * 33; j++)
            cr_assert_eq(nd_load(nd_as_const(dw), j), 0.0);
    }
    harness_close(&h);
}
