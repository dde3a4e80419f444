/* The fast products and attention against the reference. */
#include "core/backend/cpu/reference.h"
#include "core/conformance.h"

/* f32 products of f32; bf16 outputs or operands that are rounded once (2^-9 in the mean); attention
 * in bf16 also rounds the probabilities and their gradients. */
static const double PRODUCT_F32 = 2e-6, PRODUCT_BF16 = 4e-3, ATTENTION_F32 = 2e-6,
                    ATTENTION_BF16 = 8e-3;

/* tokens, outputs, inputs; a GPU's library takes int8 in multiples of 16 outputs and inputs; the
 * last four are products of few rows at which oneDNN 2.6 stops with AMX */
static const int64_t shapes[][3] = {{1, 1, 1},      {1, 300, 64},   {70, 65, 33},  {5, 7, 160},
                                    {64, 1, 96},    {130, 257, 32}, {300, 64, 65}, {2, 5, 1000},
                                    {1100, 70, 35}, {1, 48, 64},    {17, 16, 32},  {300, 128, 96},
                                    {7, 63, 208},   {7, 208, 63},   {5, 208, 127}, {63, 200, 80}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

typedef struct ternary_inputs {
    nd_cview q, a, c, s;
} ternary_inputs;

/* groups 0: one scale for the matrix. */
static ternary_inputs random_ternary(harness *h, int64_t tokens, int64_t out, int64_t in,
                                     int64_t groups)
{
    return (ternary_inputs){
        nd_as_const(random_integers(h, ND_I8, tokens, in, -128, 127)),
        nd_as_const(random_scales(h, tokens, 1)),
        nd_as_const(random_integers(h, ND_I8, out, in, -1, 1)),
        nd_as_const(random_scales(h, groups ? out : 1, groups ? groups : 1)),
    };
}

Test(products, the_ternary_forward_is_the_exact_integer_product)
{
    harness h;
    harness_open(&h);
    const int64_t sizes[][3] = {{3, 5, 7}, {65, 129, 512}, {2, 70, 4096}, {19, 80, 4096}};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        const int64_t tokens = sizes[s][0], out = sizes[s][1], in = sizes[s][2];
        ternary_inputs t = random_ternary(&h, tokens, out, in, 0);
        const nd_view q = random_integers(&h, ND_I8, tokens, in, -128, 127);
        const nd_view c = random_integers(&h, ND_I8, out, in, -1, 1);
        for (int64_t i = 0; i < in; i++) { /* the largest sums of both signs */
            set_element(q, i, -128);
            set_element(q, in + i, i % 2 ? -128 : 127);
            set_element(c, i, 1);
            set_element(c, in + i, i % 2 ? -1 : 1);
        }
        const nd_view a = poisoned(&h, ND_F32, tokens, 1), one = poisoned(&h, ND_F32, 1, 1);
        for (int64_t i = 0; i < tokens; i++)
            set_element(a, i, 127.0);
        set_element(one, 0, 1.0);
        t = (ternary_inputs){nd_as_const(q), nd_as_const(a), nd_as_const(c), nd_as_const(one)};
        const outputs y = poisoned_outputs(&h, ND_F64, ND_F32, tokens, out);
        RUN(&h, ternary_gemm, y.view[i], t.q, t.a, t.c, t.s);
        check_equal(&h, "ternary_gemm", &y);
        for (int64_t i = 0; i < tokens; i++)
            for (int64_t o = 0; o < out; o++) {
                int32_t sum = 0;
                for (int64_t j = 0; j < in; j++)
                    sum +=
                        ((const int8_t *)q.data)[i * in + j] * ((const int8_t *)c.data)[o * in + j];
                const double got = nd_load(nd_as_const(y.view[1]), i * out + o);
                cr_assert(got == sum, "got %g, expected %d", got, sum);
            }
        harness_reset(&h);
    }
    harness_close(&h);
}

static void check_ternary(harness *h, const ternary_inputs *t, nd_dtype dy_type, nd_dtype out_type)
{
    const int64_t tokens = t->q.rows, out = t->c.rows, in = t->c.cols;
    const double tolerance = out_type == ND_BF16 ? PRODUCT_BF16 : PRODUCT_F32;
    /* A device multiplies bf16 gradients by weights in bf16, which group scales round. */
    const bool rounds = on_device && dy_type == ND_BF16 && nd_view_count(t->s) > 1;
    const double dx_tolerance = rounds ? PRODUCT_BF16 : tolerance;
    const outputs y = poisoned_outputs(h, ND_F64, out_type, tokens, out);
    RUN(h, ternary_gemm, y.view[i], t->q, t->a, t->c, t->s);
    check_close(h, "ternary_gemm", &y, tolerance);
    const nd_cview dy = nd_as_const(random_floats(h, dy_type, tokens, out, 1.0f));
    const outputs dx = poisoned_outputs(h, ND_F64, out_type, tokens, in);
    RUN(h, ternary_gemm_dx, dx.view[i], dy, t->c, t->s, 0.0f);
    check_close(h, "ternary_gemm_dx", &dx, dx_tolerance);
    const nd_cview start = nd_as_const(random_floats(h, out_type, tokens, in, 1.0f));
    const outputs dx_sum = copied_outputs(h, ND_F64, start);
    RUN(h, ternary_gemm_dx, dx_sum.view[i], dy, t->c, t->s, 1.0f);
    check_close(h, "ternary_gemm_dx +=", &dx_sum, dx_tolerance);
    const outputs dw = poisoned_outputs(h, ND_F64, ND_F32, out, in);
    const double dw_tolerance = dy_type == ND_BF16 ? PRODUCT_BF16 : PRODUCT_F32;
    RUN(h, ternary_gemm_dw, dw.view[i], dy, t->q, t->a, 0.0f);
    check_close(h, "ternary_gemm_dw", &dw, dw_tolerance);
    RUN(h, ternary_gemm_dw, dw.view[i], dy, t->q, t->a, 1.0f);
    check_close(h, "ternary_gemm_dw +=", &dw, dw_tolerance);
}

Test(products, ternary_products_agree_with_the_reference)
{
    harness h;
    harness_open(&h);
    for (int s = 0; s < SHAPES; s++)
        for (int mix = 0; mix < 4; mix++) {
            const ternary_inputs t =
                random_ternary(&h, shapes[s][0], shapes[s][1], shapes[s][2], 0);
            check_ternary(&h, &t, float_dtypes[mix & 1], float_dtypes[mix >> 1]);
            harness_reset(&h);
        }
    harness_close(&h);
}

Test(products, ternary_products_with_group_scales_agree_with_the_reference)
{
    harness h;
    harness_open(&h);
    const int64_t grouped[][4] = {{1, 3, 4, 1}, {70, 65, 96, 3}, {33, 130, 256, 2}};
    for (int s = 0; s < 3; s++)
        for (int mix = 0; mix < 4; mix++) {
            const ternary_inputs t =
                random_ternary(&h, grouped[s][0], grouped[s][1], grouped[s][2], grouped[s][3]);
            check_ternary(&h, &t, float_dtypes[mix & 1], float_dtypes[mix >> 1]);
            harness_reset(&h);
        }
    harness_close(&h);
}

/* Tiles of 192 rows and 512 columns, blocks of 256 and 512 inner values, and a result of 2 MiB in
 * bf16, which may be written past the caches: some rows start at a multiple of 64 bytes. */
Test(products, ternary_products_of_several_tiles_agree_with_the_reference)
{
    static const int64_t large[][3] = {{300, 530, 540}, {1024, 1032, 20}};
    harness h;
    if (on_device) /* which has other tiles */
        return;
    harness_open(&h);
    for (int s = 0; s < 2; s++)
        for (int mix = 0; mix < 2; mix++) {
            const ternary_inputs t = random_ternary(&h, large[s][0], large[s][1], large[s][2], 0);
            check_ternary(&h, &t, float_dtypes[mix], float_dtypes[mix]);
            harness_reset(&h);
        }
    harness_close(&h);
}

static void check_gemm(harness *h, const int64_t *size, int mix, float alpha, float beta)
{
    const int64_t m = size[0], n = size[1], k = size[2];
    const bool ta = mix & 1, tb = mix & 2;
    const nd_dtype a_type = float_dtypes[mix >> 2 & 1], b_type = float_dtypes[mix >> 3 & 1];
    const nd_dtype c_type = float_dtypes[mix >> 4 & 1];
    const nd_cview a = nd_as_const(random_floats(h, a_type, ta ? k : m, ta ? m : k, 1.0f));
    const nd_cview b = nd_as_const(random_floats(h, b_type, tb ? n : k, tb ? k : n, 1.0f));
    const nd_cview start = nd_as_const(random_floats(h, c_type, m, n, 1.0f));
    const outputs c =
        beta == 0.0f ? poisoned_outputs(h, ND_F64, c_type, m, n) : copied_outputs(h, ND_F64, start);
    RUN(h, gemm, c.view[i], a, ta, b, tb, alpha, beta);
    /* The f32 operand of a mixed pair is rounded to bf16: 2^-9 of a product in the mean, which may
     * be more of a sum when there are few. */
    const bool rounds = a_type != b_type;
    const double tolerance = c_type == ND_BF16 || rounds ? PRODUCT_BF16 : PRODUCT_F32;
    check_close(h, "gemm", &c, rounds && m * n < 64 ? 5.0 * tolerance : tolerance);
}

Test(products, dense_products_agree_with_the_reference)
{
    harness h;
    harness_open(&h);
    for (int s = 0; s < SHAPES; s++)
        for (int mix = 0; mix < 32; mix++) {
            check_gemm(&h, shapes[s], mix, 1.0f, 0.0f);
            check_gemm(&h, shapes[s], mix, 1.0f, 1.0f);
            check_gemm(&h, shapes[s], mix, -0.5f, 0.25f);
            harness_reset(&h);
        }
    /* Several tiles across, and blocks of the inner dimension, of f32 and of bf16. */
    for (int mix = 0; mix < 16; mix += mix == 3 ? 9 : 1) {
        check_gemm(&h, (const int64_t[]){70, 530, 300}, mix, -0.5f, 0.25f);
        harness_reset(&h);
    }
    harness_close(&h);
}

static void check_symmetric(const outputs *c, int64_t m)
{
    for (int64_t at = 0; at < m * m; at++)
        cr_assert_eq(nd_load(nd_as_const(c->view[1]), at),
                     nd_load(nd_as_const(c->view[1]), at % m * m + at / m));
}

Test(products, symmetric_products_agree_with_the_reference)
{
    static const int64_t sides[][2] = {{1, 1},     {3, 70},    {64, 5},   {257, 40},
                                       {300, 300}, {520, 290}, {136, 200}};
    harness h;
    harness_open(&h);
    for (int s = 0; s < 7; s++)
        for (int mix = 0; mix < 8; mix++) {
            const int64_t m = sides[s][0], k = sides[s][1];
            const nd_dtype c_type = float_dtypes[mix >> 1 & 1];
            const bool ta = mix & 4;
            const nd_cview a =
                nd_as_const(random_floats(&h, float_dtypes[mix & 1], ta ? k : m, ta ? m : k, 1.0f));
            const outputs c = poisoned_outputs(&h, ND_F64, c_type, m, m);
            RUN(&h, gemm_symmetric, c.view[i], a, ta, a, -0.5f, 0.0f, 0.0f);
            check_close(&h, "gemm_symmetric", &c, c_type == ND_BF16 ? PRODUCT_BF16 : PRODUCT_F32);
            check_symmetric(&c, m);
            harness_reset(&h);
        }
    harness_close(&h);
}

/* Symmetric, and commutes with any other of its kind: element (i, j) is a function of |i - j|
 * modulo m. */
static nd_cview random_circulant(harness *h, nd_dtype type, int64_t m)
{
    const nd_cview values = nd_as_const(random_floats(h, type, 1, m, 1.0f));
    const nd_view out = poisoned(h, type, m, m);
    for (int64_t at = 0; at < m * m; at++) {
        const int64_t apart = llabs(at / m - at % m);
        set_element(out, at, nd_load(values, apart < m - apart ? apart : m - apart));
    }
    return nd_as_const(out);
}

Test(products, products_of_commuting_matrices_and_their_addends_agree_with_the_reference)
{
    static const int64_t sides[] = {1, 7, 64, 136, 300};
    harness h;
    harness_open(&h);
    for (int s = 0; s < 5; s++)
        for (int mix = 0; mix < 8; mix++) {
            const int64_t m = sides[s];
            const nd_dtype type = float_dtypes[mix & 1], c_type = float_dtypes[mix >> 1 & 1];
            const nd_cview a = random_circulant(&h, type, m), b = random_circulant(&h, type, m);
            const outputs c = poisoned_outputs(&h, ND_F64, c_type, m, m);
            RUN(&h, gemm_symmetric, c.view[i], a, mix & 4, b, -0.5f, 3.0f, 2.0f);
            check_close(&h, "gemm_symmetric", &c, c_type == ND_BF16 ? PRODUCT_BF16 : PRODUCT_F32);
            check_symmetric(&c, m);
            harness_reset(&h);
        }
    harness_close(&h);
}

/* Sizes at which a library would share the inner dimension between threads. */
Test(products, long_sums_do_not_depend_on_threads)
{
    harness h;
    harness_open(&h);
    nd_backend_destroy(h.backend[0]); /* the reference would take long and is not compared */
    ND_ASSERT_OK(nd_cpu_backend_create(&(nd_cpu_backend_options){.threads = 1}, &h.backend[0]));
    for (int mix = 0; mix < 16; mix++) {
        const nd_dtype type = float_dtypes[mix & 1];
        const bool ta = mix & 2, tb = mix & 4;
        const int64_t m = mix & 8 ? 1 : 96, n = mix & 8 ? 1000 : 48, k = mix & 8 ? 512 : 6000;
        const nd_cview a = nd_as_const(random_floats(&h, type, ta ? k : m, ta ? m : k, 1.0f));
        const nd_cview b = nd_as_const(random_floats(&h, type, tb ? n : k, tb ? k : n, 1.0f));
        const outputs c = poisoned_outputs(&h, ND_F32, ND_F32, m, n);
        RUN(&h, gemm, c.view[i], a, ta, b, tb, 1.0f, 0.0f);
        if (on_device) /* which adds in another order */
            check_same_bits(&h, "gemm", &c);
        else
            check_equal(&h, "gemm", &c);
        harness_reset(&h);
    }
    harness_close(&h);
}

static const nd_attention_shape attentions[] = {
    {1, 1, 1, 1, 1, 1, {0}},      {2, 17, 17, 4, 2, 16, {0}},   {1, 130, 200, 6, 2, 64, {0}},
    {2, 1, 37, 4, 4, 8, {0}},     {1, 3, 150, 8, 2, 64, {0}},   {1, 300, 300, 2, 2, 64, {0}},
    {1, 70, 70, 12, 4, 80, {0}},  {1, 129, 129, 3, 1, 7, {0}},  {2, 5, 128, 66, 1, 32, {0}},
    {1, 256, 256, 4, 1, 64, {0}}, {1, 140, 140, 4, 2, 48, {0}}, {2, 70, 70, 3, 1, 96, {0}},
    {1, 40, 200, 2, 2, 128, {0}}};
enum { ATTENTIONS = sizeof attentions / sizeof *attentions };

static void check_attention(harness *h, const nd_attention_shape *s, nd_dtype in_type,
                            nd_dtype out_type, float std)
{
    const int64_t queries = s->sequences * s->query_len, keys = s->sequences * s->key_len;
    const int64_t width = s->heads * s->head_dim, kv_width = s->kv_heads * s->head_dim;
    const nd_cview q = nd_as_const(random_floats(h, in_type, queries, width, std));
    const nd_cview k = nd_as_const(random_floats(h, in_type, keys, kv_width, std));
    const nd_cview v = nd_as_const(random_floats(h, in_type, keys, kv_width, 1.0f));
    const nd_cview dout = nd_as_const(random_floats(h, out_type, queries, width, 1.0f));
    const outputs o = poisoned_outputs(h, ND_F64, out_type, queries, width);
    const outputs lse = poisoned_outputs(h, ND_F64, ND_F32, queries, s->heads);
    const bool narrow = in_type == ND_BF16 || out_type == ND_BF16;
    const double tolerance =
        narrow ? ATTENTION_BF16 : ATTENTION_F32 * (double)fmaxf(1.0f, std * std);
    RUN(h, attention, o.view[i], lse.view[i], q, k, v, s);
    check_close(h, "attention o", &o, tolerance);
    check_close(h, "attention lse", &lse, PRODUCT_F32);
    const outputs dq = poisoned_outputs(h, ND_F64, out_type, queries, width);
    const outputs dk = poisoned_outputs(h, ND_F64, out_type, keys, kv_width);
    const outputs dv = poisoned_outputs(h, ND_F64, out_type, keys, kv_width);
    const nd_view lse_in = poisoned(h, ND_F32, queries, s->heads);
    const nd_view o_in = poisoned(h, ND_F32, queries, width);
    for (int64_t i = 0; i < queries * s->heads; i++)
        set_element(lse_in, i, nd_load(nd_as_const(lse.view[0]), i));
    for (int64_t i = 0; i < queries * width; i++)
        set_element(o_in, i, nd_load(nd_as_const(o.view[0]), i));
    RUN(h, attention_backward, dq.view[i], dk.view[i], dv.view[i], dout, nd_as_const(o_in),
        nd_as_const(lse_in), q, k, v, s);
    if (s->key_len == 1) {
        check_same_bits(h, "attention dq", &dq); /* zero up to rounding */
        return;
    }
    check_close(h, "attention dq", &dq, tolerance);
    check_close(h, "attention dk", &dk, tolerance);
    check_close(h, "attention dv", &dv, tolerance);
}

Test(products, attention_agrees_with_the_reference)
{
    harness h;
    harness_open(&h);
    for (int s = 0; s < ATTENTIONS; s++)
        for (int mix = 0; mix < 4; mix++) {
            check_attention(&h, &attentions[s], float_dtypes[mix & 1], float_dtypes[mix >> 1],
                            1.0f);
            harness_reset(&h);
        }
    harness_close(&h);
}

/* Scores in the hundreds: one key takes all, nothing overflows. */
Test(products, attention_with_large_scores_is_finite)
{
    harness h;
    harness_open(&h);
    for (int s = 1; s < 4; s++)
        check_attention(&h, &attentions[s], ND_F32, ND_F32, 8.0f);
    harness_close(&h);
}

/* Of a matrix, or of one group in it. */
Test(products, codes_of_weights_that_are_not_finite_have_a_scale_that_says_so)
{
    enum { ROWS = 6, N = 130, BAD = 4 };
    static const double values[] = {NAN, -NAN, INFINITY, -INFINITY};
    harness h;
    harness_open(&h);
    for (int v = 0; v < 4; v++)
        for (int64_t groups = 0; groups <= 2; groups++) {
            const nd_view w = random_floats(&h, groups == 1 ? ND_BF16 : ND_F32, ROWS, N, 1.0f);
            const int64_t rows = groups ? ROWS : 1, cols = groups ? groups : 1;
            const outputs c = poisoned_outputs(&h, ND_I8, ND_I8, ROWS, N);
            const outputs s = poisoned_outputs(&h, ND_F32, ND_F32, rows, cols);
            set_element(w, BAD * N + 1, values[v]);
            RUN(&h, ternarize, c.view[i], s.view[i], nd_as_const(w));
            for (int i = 0; i < 2; i++)
                for (int64_t k = 0; k < rows * cols; k++)
                    cr_assert_eq(isfinite(((const float *)s.view[i].data)[k]) == 0,
                                 !groups || k == BAD * groups, "scale %lld of %d", (long long)k, i);
            for (int i = 0; i < 2; i++)
                for (int64_t k = 0; k < N / cols; k++)
                    cr_assert_eq(((const int8_t *)c.view[i].data)[BAD * N + k], 0);
        }
    harness_close(&h);
}

Test(products, the_workspace_grows_with_new_shapes_only)
{
    harness h;
    harness_open(&h);
    nd_backend *b = h.backend[BACKENDS - 1];
    size_t bytes[3];
    for (int repeat = 0; repeat < 3; repeat++) {
        const ternary_inputs t = random_ternary(&h, 70, 65, 33, 0);
        const nd_view y = poisoned(&h, ND_F32, 70, 65), dw = poisoned(&h, ND_F32, 65, 33);
        ND_ASSERT_OK(b->ops.ternary_gemm(b, y, t.q, t.a, t.c, t.s));
        ND_ASSERT_OK(b->ops.ternary_gemm_dw(b, dw, nd_as_const(y), t.q, t.a, 0.0f));
        const nd_attention_shape s = attentions[1];
        const nd_view q = random_floats(&h, ND_F32, 34, 64, 1.0f), o = poisoned(&h, ND_F32, 34, 64);
        const nd_view k = random_floats(&h, ND_F32, 34, 32, 1.0f);
        const nd_view lse = poisoned(&h, ND_F32, 34, 4);
        ND_ASSERT_OK(
            b->ops.attention(b, o, lse, nd_as_const(q), nd_as_const(k), nd_as_const(k), &s));
        bytes[repeat] = b->ops.workspace_bytes(b);
    }
    cr_assert(bytes[0] > 0);
    cr_assert(bytes[1] == bytes[0] && bytes[2] == bytes[0]);
    harness_close(&h);
}
