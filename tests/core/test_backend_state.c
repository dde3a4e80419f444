/* Updates and quantised optimizer state: fast against reference, and codes against their bounds. */
#include "core/base/dynamic_code.h"
#include "core/conformance.h"

static const int64_t shapes[][2] = {{1, 1},    {1, 37},    {5, 16},    {3, 100},  {17, 65},
                                    {64, 256}, {130, 129}, {300, 260}, {40, 1000}};
enum { SHAPES = sizeof shapes / sizeof *shapes };
static const nd_block_code kinds[] = {ND_BLOCK_LINEAR, ND_BLOCK_DYNAMIC, ND_BLOCK_DYNAMIC_UNSIGNED};
static const int64_t lengths[] = {256, 2048, 37};

/* Outputs of quantize_blocks for each backend. */
typedef struct block_outputs {
    outputs codes, scales;
    int64_t block;
    nd_block_code code;
} block_outputs;

static block_outputs blocks_like(harness *h, nd_cview x, nd_block_code code, int64_t block)
{
    const nd_dtype type = code == ND_BLOCK_LINEAR ? ND_I8 : ND_U8;
    const int64_t blocks = (nd_view_count(x) + block - 1) / block;
    return (block_outputs){poisoned_outputs(h, type, type, x.rows, x.cols),
                           poisoned_outputs(h, ND_F32, ND_F32, 1, blocks), block, code};
}

static nd_blocks of(const block_outputs *q, int i)
{
    return (nd_blocks){q->codes.view[i], q->scales.view[i], q->block, q->code};
}

/* Values over many decades, with zeros and both signs (or none for the unsigned code). */
static nd_view moments(harness *h, int64_t rows, int64_t cols, bool positive)
{
    const nd_view x = random_floats(h, ND_F32, rows, cols, 1.0f);
    const nd_cview power = nd_as_const(random_floats(h, ND_F32, rows, cols, 3.0f));
    for (int64_t i = 0; i < rows * cols; i++) {
        const double value = nd_load(nd_as_const(x), i) * exp(nd_load(power, i)) * 1e-4;
        set_element(x, i, i % 11 == 3 ? 0.0 : positive ? fabs(value) : value);
    }
    return x;
}

static block_outputs encoded(harness *h, nd_cview x, nd_block_code code, int64_t block)
{
    const block_outputs q = blocks_like(h, x, code, block);
    for (int i = 0; i < BACKENDS; i++) {
        const nd_blocks blocks = of(&q, i);
        ND_ASSERT_OK(h->backend[i]->ops.quantize_blocks(h->backend[i], &blocks, x));
    }
    return q;
}

static outputs decoded(harness *h, const block_outputs *q, int64_t rows, int64_t cols)
{
    const outputs x = poisoned_outputs(h, ND_F32, ND_F32, rows, cols);
    for (int i = 0; i < BACKENDS; i++) {
        const nd_blocks blocks = of(q, i);
        ND_ASSERT_OK(h->backend[i]->ops.dequantize_blocks(h->backend[i], x.view[i], &blocks));
    }
    return x;
}

/* How far a value may come back from x in a block whose largest magnitude is s. */
static double bound(nd_block_code code, double x, double s)
{
    if (code == ND_BLOCK_LINEAR)
        return s / 254.0 * (1.0 + 1e-5);
    /* Half a cell: 0.45 / c of a decade's end, with c = 2^d or 2^(d+1) cells in decade d. */
    const double a = fabs(x) / s;
    for (int d = 6; d >= 0; d--)
        if (a >= pow(10.0, d - 7) * (1.0 - 1e-5)) {
            const double cells = (double)((code == ND_BLOCK_DYNAMIC ? 1 : 2) << d);
            /* the signed code's last value stands for one and a half cells */
            const double wide = code == ND_BLOCK_DYNAMIC && d == 6 ? 1.5 : 1.0;
            return s * pow(10.0, d - 6) * 0.45 / cells * wide * (1.0 + 1e-4) + 1e-12 * s;
        }
    return s * 6e-7;
}

static void blocks_case(harness *h, int64_t rows, int64_t cols, nd_block_code code, int64_t block)
{
    const nd_cview x = nd_as_const(moments(h, rows, cols, code == ND_BLOCK_DYNAMIC_UNSIGNED));
    const block_outputs q = encoded(h, x, code, block);
    check_equal(h, "quantize_blocks codes", &q.codes);
    check_equal(h, "quantize_blocks scales", &q.scales);
    const outputs y = decoded(h, &q, rows, cols);
    check_close(h, "dequantize_blocks", &y, 1e-6);
    for (int64_t i = 0; i < rows * cols; i++) {
        const double s = nd_load(nd_as_const(q.scales.view[1]), i / block);
        const double in = nd_load(x, i), out = nd_load(nd_as_const(y.view[1]), i);
        cr_assert(fabs(in - out) <= bound(code, in, s), "code %d: %g came back as %g, scale %g",
                  (int)code, in, out, s);
        if (fabs(in) == s)
            cr_assert_float_eq(out, in, 1e-6 * s, "the largest, %g, came back as %g", in, out);
        if (code == ND_BLOCK_DYNAMIC_UNSIGNED)
            cr_assert_eq(out > 0.0, in > 0.0, "%g came back as %g", in, out);
    }
}

Test(state, blocks_equal_the_reference_and_come_back_within_half_a_step)
{
    harness h;
    harness_open(&h);
    for (int s = 0; s < SHAPES; s++)
        for (int k = 0; k < 3; k++) {
            blocks_case(&h, shapes[s][0], shapes[s][1], kinds[k], lengths[(s + k) % 3]);
            harness_reset(&h);
        }
    harness_close(&h);
}

Test(state, a_block_of_zeros_or_of_next_to_nothing_comes_back_as_zeros)
{
    harness h;
    harness_open(&h);
    for (int k = 0; k < 3; k++) {
        const nd_view x = poisoned(&h, ND_F32, 2, 100);
        for (int i = 0; i < 200; i++)
            set_element(x, i, i < 100 ? 0.0 : 1e-35);
        const block_outputs q = encoded(&h, nd_as_const(x), kinds[k], 100);
        const outputs y = decoded(&h, &q, 2, 100);
        for (int i = 0; i < 200; i++)
            for (int b = 0; b < BACKENDS; b++)
                cr_assert_eq(nd_load(nd_as_const(y.view[b]), i), 0.0);
        harness_reset(&h);
    }
    harness_close(&h);
}

Test(state, a_block_with_a_nan_or_an_infinity_decodes_to_nothing_finite)
{
    harness h;
    harness_open(&h);
    for (int k = 0; k < 6; k++) {
        const nd_view x = poisoned(&h, ND_F32, 1, 300);
        for (int i = 0; i < 300; i++)
            set_element(x, i, 1.0);
        set_element(x, 77, k % 2 ? NAN : INFINITY);
        const block_outputs q = encoded(&h, nd_as_const(x), kinds[k / 2], 256);
        const outputs y = decoded(&h, &q, 1, 300);
        for (int i = 0; i < 300; i++)
            for (int b = 0; b < BACKENDS; b++)
                cr_assert_eq(isfinite(nd_load(nd_as_const(y.view[b]), i)) != 0, i >= 256,
                             "element %d is %g", i, nd_load(nd_as_const(y.view[b]), i));
        harness_reset(&h);
    }
    harness_close(&h);
}

Test(state, the_dynamic_codes_have_every_value_once_in_order)
{
    for (int has_sign = 0; has_sign < 2; has_sign++) {
        nd_dynamic_code code;
        nd_dynamic_code_fill(&code, has_sign);
        cr_assert_eq(code.count, has_sign ? 128 : 256);
        cr_assert_eq(code.values[0], 0.0f);
        cr_assert_eq(code.values[code.count - 1], 1.0f);
        for (int k = 1; k < code.count; k++)
            cr_assert(code.values[k] > code.values[k - 1] && code.limits[k - 1] < code.values[k]);
    }
}

static const nd_adamw_params adamw_params = {.learning_rate = 0.01f,
                                             .beta1 = 0.9f,
                                             .beta2 = 0.95f,
                                             .epsilon = 1e-8f,
                                             .weight_decay = 0.1f,
                                             .gradient_scale = 0.5f,
                                             .correction1 = 0.19f,
                                             .correction2 = 0.0975f,
                                             .rounding_key = 99};

static void adamw_case(harness *h, int64_t rows, int64_t cols, nd_dtype w_type, nd_dtype g_type)
{
    const nd_cview g = nd_as_const(random_floats(h, g_type, rows, cols, 1e-3f));
    const nd_cview start = nd_as_const(random_floats(h, w_type, rows, cols, 1.0f));
    const block_outputs m =
        encoded(h, nd_as_const(moments(h, rows, cols, false)), ND_BLOCK_DYNAMIC, 256);
    const block_outputs v =
        encoded(h, nd_as_const(moments(h, rows, cols, true)), ND_BLOCK_DYNAMIC_UNSIGNED, 256);
    const outputs w = copied_outputs(h, w_type == ND_BF16 ? ND_BF16 : ND_F64, start);
    for (int i = 0; i < BACKENDS; i++) {
        const nd_blocks first = of(&m, i), second = of(&v, i);
        ND_ASSERT_OK(h->backend[i]->ops.adamw_blocks(h->backend[i], w.view[i], &first, &second, g,
                                                     &adamw_params));
    }
    check_close(h, "adamw_blocks w", &w, w_type == ND_BF16 ? 8e-3 : 1e-6);
    check_same_bits(h, "adamw_blocks m", &m.codes);
    check_same_bits(h, "adamw_blocks v", &v.codes);
    /* f32 and double moments may fall on two sides of a limit: neighbors, and rarely. */
    int64_t off = 0;
    for (int64_t i = 0; i < rows * cols; i++) {
        const double dm =
            nd_load(nd_as_const(m.codes.view[0]), i) - nd_load(nd_as_const(m.codes.view[1]), i);
        const double dv =
            nd_load(nd_as_const(v.codes.view[0]), i) - nd_load(nd_as_const(v.codes.view[1]), i);
        cr_assert(fabs(dm) <= 1.0 && fabs(dv) <= 1.0);
        off += dm != 0.0 || dv != 0.0;
    }
    const bool rare = (double)off <= 1.0 + 1e-3 * (double)(rows * cols);
    cr_assert(rare, "%lld codes differ", (long long)off);
}

Test(state, adamw_on_blocks_agrees_with_the_reference)
{
    harness h;
    harness_open(&h);
    for (int s = 0; s < SHAPES; s++)
        for (int mix = 0; mix < 4; mix++) {
            adamw_case(&h, shapes[s][0], shapes[s][1], float_dtypes[mix & 1],
                       float_dtypes[mix >> 1]);
            harness_reset(&h);
        }
    harness_close(&h);
}

static void tiles_case(harness *h, int64_t rows, int64_t cols)
{
    const nd_view x = random_floats(h, ND_F32, rows, cols, 1e-3f);
    for (int64_t i = 0; i < rows * cols; i += cols + 3)
        set_element(x, i, 1e-38);
    for (int64_t j = 0; j < cols; j++) /* a row that is nothing but zeros */
        set_element(x, rows / 2 * cols + j, 0.0);
    const int64_t down = (rows + ND_TILE - 1) / ND_TILE, across = (cols + ND_TILE - 1) / ND_TILE;
    const outputs codes = poisoned_outputs(h, ND_U8, ND_U8, rows, (cols + 1) / 2);
    const outputs row_max = poisoned_outputs(h, ND_BF16, ND_BF16, rows, across);
    const outputs column_max = poisoned_outputs(h, ND_BF16, ND_BF16, down, cols);
    const outputs y = copied_outputs(h, ND_F32, nd_as_const(x));
    for (int i = 0; i < BACKENDS; i++) {
        nd_backend *b = h->backend[i];
        const nd_tiles q = {codes.view[i], row_max.view[i], column_max.view[i]};
        ND_ASSERT_OK(b->ops.quantize_tiles(b, &q, nd_as_const(x)));
        ND_ASSERT_OK(b->ops.dequantize_tiles(b, y.view[i], &q, 1.0f));
    }
    check_equal(h, "quantize_tiles codes", &codes);
    check_equal(h, "quantize_tiles rows", &row_max);
    check_equal(h, "quantize_tiles columns", &column_max);
    check_close(h, "dequantize_tiles", &y, 1e-6);
    for (int64_t i = 0; i < rows * cols; i++) {
        const int64_t r = i / cols, c = i % cols;
        const double s = fmin(nd_load(nd_as_const(row_max.view[1]), r * across + c / ND_TILE),
                              nd_load(nd_as_const(column_max.view[1]), r / ND_TILE * cols + c));
        const double in = nd_load(nd_as_const(x), i), out = nd_load(nd_as_const(y.view[1]), i) - in;
        cr_assert(fabs(in - out) <= 0.102 * s, "%g came back as %g, scale %g", in, out, s);
    }
}

Test(state, tiles_equal_the_reference_and_come_back_within_half_a_step)
{
    harness h;
    harness_open(&h);
    for (int s = 0; s < SHAPES; s++) {
        tiles_case(&h, shapes[s][0], shapes[s][1]);
        harness_reset(&h);
    }
    harness_close(&h);
}

static void momentum_case(harness *h, int64_t rows, int64_t n, nd_dtype g_type, nd_dtype u_type)
{
    const nd_cview g = nd_as_const(random_floats(h, g_type, rows, n, 1.0f));
    const nd_cview start = nd_as_const(random_floats(h, ND_F32, rows, n, 1.0f));
    for (int nesterov = 0; nesterov < 2; nesterov++) {
        const outputs m = copied_outputs(h, ND_F64, start);
        const outputs u = poisoned_outputs(h, ND_F64, u_type, rows, n);
        RUN(h, momentum, u.view[i], m.view[i], g, 0.95f, 0.5f, nesterov != 0);
        check_close(h, "momentum m", &m, TOLERANCE_F32);
        check_close(h, "momentum u", &u, tolerance(u_type));
    }
}

Test(backend, momentum_agrees_with_the_reference)
{
    over_shapes_and_dtypes(momentum_case);
}

/* Stochastic rounding uses the same random words, so that bf16 weights differ only where the f32
 * value falls on the other side of the draw. */
static void check_masters(const harness *h, const char *what, const outputs *w)
{
    if (w->view[1].dtype != ND_BF16) {
        check_close(h, what, w, TOLERANCE_F32);
        return;
    }
    int64_t off = 0;
    const int64_t count = nd_view_count(nd_as_const(w->view[0]));
    for (int64_t i = 0; i < count; i++)
        off += nd_load(nd_as_const(w->view[0]), i) != nd_load(nd_as_const(w->view[1]), i);
    const bool rare = (double)off <= 1.0 + TIE_FRACTION * (double)count;
    cr_assert(rare, "%s (%s): %lld of %lld differ", what, h->isa, (long long)off, (long long)count);
    check_close(h, what, w, 2.0 * TOLERANCE_BF16);
}

static void update_case(harness *h, int64_t rows, int64_t n, nd_dtype u_type, nd_dtype w_type)
{
    const nd_cview u = nd_as_const(random_floats(h, u_type, rows, n, 1.0f));
    const nd_cview start = nd_as_const(random_floats(h, w_type, rows, n, 1.0f));
    const nd_dtype reference = w_type == ND_BF16 ? ND_BF16 : ND_F64;
    for (int cautious = 0; cautious < 2; cautious++) {
        const nd_update_params update = {0.02f, 0.01f, cautious != 0, 0x1234567890abcdefu};
        const outputs w = copied_outputs(h, reference, start);
        RUN(h, apply_update, w.view[i], u, &update);
        check_masters(h, "apply_update", &w);
        nd_adamw_params adamw = adamw_params;
        adamw.cautious_decay = cautious != 0;
        const outputs weights = copied_outputs(h, reference, start);
        const nd_cview m0 = nd_as_const(random_floats(h, ND_F32, rows, n, 0.1f));
        const outputs m = copied_outputs(h, ND_F64, m0);
        const outputs v = copied_outputs(h, ND_F64, nd_as_const(random_scales(h, rows, n)));
        RUN(h, adamw, weights.view[i], m.view[i], v.view[i], u, &adamw);
        check_masters(h, "adamw w", &weights);
        check_close(h, "adamw m", &m, TOLERANCE_F32);
        check_close(h, "adamw v", &v, TOLERANCE_F32);
    }
}

Test(backend, updates_agree_with_the_reference)
{
    over_shapes_and_dtypes(update_case);
}
