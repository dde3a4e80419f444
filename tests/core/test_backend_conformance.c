/* Every slot of the fast CPU layer against the reference: rows, codes and loss. Products and
 * attention are in test_backend_products.c, updates in test_backend_state.c. */
#include "core/conformance.h"

/* Sums over many rows in f32. */
static const double TOLERANCE_SUM = 5e-6;

static void check_quantized(const harness *h, const char *what, const outputs *q)
{
    int64_t off = 0;
    const int64_t count = nd_view_count(nd_as_const(q->view[0]));
    for (int64_t i = 0; i < count; i++) {
        const double d = nd_load(nd_as_const(q->view[1]), i) - nd_load(nd_as_const(q->view[0]), i);
        cr_assert(fabs(d) <= 1.0, "%s (%s): element %lld is off by %g", what, h->isa, (long long)i,
                  d);
        off += d != 0.0;
    }
    const bool rare = (double)off <= 1.0 + TIE_FRACTION * (double)count;
    cr_assert(rare, "%s (%s): %lld of %lld differ", what, h->isa, (long long)off, (long long)count);
    check_same_bits(h, what, q);
}

static void rmsnorm_case(harness *h, int64_t rows, int64_t n, nd_dtype x_type, nd_dtype y_type)
{
    const nd_cview x = nd_as_const(random_floats(h, x_type, rows, n, 2.0f));
    const nd_cview w = nd_as_const(random_floats(h, y_type, 1, n, 1.0f));
    const outputs y = poisoned_outputs(h, ND_F64, y_type, rows, n);
    const outputs r = poisoned_outputs(h, ND_F64, ND_F32, rows, 1);
    RUN(h, rmsnorm, y.view[i], r.view[i], x, w);
    check_close(h, "rmsnorm y", &y, tolerance(y_type));
    check_close(h, "rmsnorm r", &r, TOLERANCE_F32);
    const outputs q = poisoned_outputs(h, ND_I8, ND_I8, rows, n);
    const outputs a = poisoned_outputs(h, ND_F32, ND_F32, rows, 1);
    RUN(h, rmsnorm_quantize, q.view[i], a.view[i], r.view[i], x, w);
    check_quantized(h, "rmsnorm_quantize q", &q);
    check_close(h, "rmsnorm_quantize a", &a, TOLERANCE_F32);
    check_close(h, "rmsnorm_quantize r", &r, TOLERANCE_F32);
}

Test(backend, rmsnorm_agrees_with_the_reference)
{
    over_shapes_and_dtypes(rmsnorm_case);
}

static void rmsnorm_backward_case(harness *h, int64_t rows, int64_t n, nd_dtype x_type,
                                  nd_dtype dx_type)
{
    const nd_cview x = nd_as_const(random_floats(h, x_type, rows, n, 2.0f));
    const nd_cview w = nd_as_const(random_floats(h, ND_F32, 1, n, 1.0f));
    const nd_cview dy = nd_as_const(random_floats(h, dx_type, rows, n, 1.0f));
    const nd_cview r = nd_as_const(random_scales(h, rows, 1));
    const outputs dx = poisoned_outputs(h, ND_F64, dx_type, rows, n);
    const nd_cview start = nd_as_const(random_floats(h, ND_F32, 1, n, 1.0f));
    const outputs dw = copied_outputs(h, ND_F64, start);
    RUN(h, rmsnorm_backward, dx.view[i], dw.view[i], dy, x, w, r, 0.0f);
    check_close(h, "rmsnorm_backward dx", &dx, tolerance(dx_type));
    check_close(h, "rmsnorm_backward dw", &dw, TOLERANCE_SUM);
    const outputs sum =
        copied_outputs(h, ND_F64, nd_as_const(random_floats(h, dx_type, rows, n, 1.0f)));
    RUN(h, rmsnorm_backward, sum.view[i], dw.view[i], dy, x, w, r, 1.0f);
    check_close(h, "rmsnorm_backward dx += ", &sum, tolerance(dx_type));
}

Test(backend, rmsnorm_backward_agrees_with_the_reference)
{
    over_shapes_and_dtypes(rmsnorm_backward_case);
}

static void swiglu_case(harness *h, int64_t rows, int64_t n, nd_dtype x_type, nd_dtype y_type)
{
    const nd_cview gate = nd_as_const(random_floats(h, x_type, rows, n, 4.0f));
    const nd_cview up = nd_as_const(random_floats(h, y_type, rows, n, 1.0f));
    const nd_cview w = nd_as_const(random_floats(h, ND_F32, 1, n, 1.0f));
    const outputs hidden = poisoned_outputs(h, ND_F64, y_type, rows, n);
    RUN(h, swiglu, hidden.view[i], gate, up);
    check_close(h, "swiglu", &hidden, tolerance(y_type));
    const outputs q = poisoned_outputs(h, ND_I8, ND_I8, rows, n);
    const outputs a = poisoned_outputs(h, ND_F32, ND_F32, rows, 1);
    const outputs r = poisoned_outputs(h, ND_F64, ND_F32, rows, 1);
    RUN(h, swiglu_rmsnorm_quantize, q.view[i], a.view[i], r.view[i], gate, up, w);
    check_quantized(h, "swiglu_rmsnorm_quantize q", &q);
    check_close(h, "swiglu_rmsnorm_quantize a", &a, TOLERANCE_F32);
    check_close(h, "swiglu_rmsnorm_quantize r", &r, TOLERANCE_F32);
}

Test(backend, swiglu_agrees_with_the_reference)
{
    over_shapes_and_dtypes(swiglu_case);
}

typedef struct codes_outputs {
    outputs q, a, r;
} codes_outputs;

static codes_outputs poisoned_codes(harness *h, int64_t rows, int64_t n)
{
    return (codes_outputs){poisoned_outputs(h, ND_I8, ND_I8, rows, n),
                           poisoned_outputs(h, ND_F32, ND_F32, rows, 1),
                           poisoned_outputs(h, ND_F64, ND_F32, rows, 1)};
}

static void check_same(const harness *h, const char *what, const outputs *out, const outputs *other)
{
    for (int i = 0; i < BACKENDS; i++)
        cr_assert_arr_eq(out->view[i].data, other->view[i].data,
                         nd_view_bytes(nd_as_const(out->view[i])), "%s (%s)", what, h->isa);
}

/* To the bit: the codes and norms of the forward pass, and the gradients with these norms. */
static void swiglu_codes_case(harness *h, int64_t rows, int64_t n, nd_dtype x_type, nd_dtype y_type)
{
    const nd_cview gate = nd_as_const(random_floats(h, x_type, rows, n, 4.0f));
    const nd_cview up = nd_as_const(random_floats(h, x_type, rows, n, 1.0f));
    const nd_cview dh = nd_as_const(random_floats(h, y_type, rows, n, 1.0f));
    const nd_cview w = nd_as_const(random_floats(h, ND_F32, 1, n, 1.0f));
    const codes_outputs before = poisoned_codes(h, rows, n), after = poisoned_codes(h, rows, n);
    const nd_view none = {0};
    outputs dgate[2], dup[2], dw[2];
    RUN(h, swiglu_rmsnorm_quantize, before.q.view[i], before.a.view[i], before.r.view[i], gate, up,
        w);
    for (int codes = 0; codes < 2; codes++) {
        dgate[codes] = copied_outputs(h, ND_F64, gate);
        dup[codes] = copied_outputs(h, ND_F64, up);
        dw[codes] = copied_outputs(h, ND_F64, w);
        RUN(h, swiglu_rmsnorm_backward, dgate[codes].view[i], dup[codes].view[i], dw[codes].view[i],
            codes ? after.q.view[i] : none, after.a.view[i],
            codes ? after.r.view[i] : before.r.view[i], dh, nd_as_const(dgate[codes].view[i]),
            nd_as_const(dup[codes].view[i]), w);
    }
    check_same(h, "q", &before.q, &after.q);
    check_same(h, "a", &before.a, &after.a);
    check_same(h, "r", &before.r, &after.r);
    check_same(h, "dgate", &dgate[0], &dgate[1]);
    check_same(h, "dup", &dup[0], &dup[1]);
    check_same(h, "dw", &dw[0], &dw[1]);
}

Test(backend, swiglu_backward_gives_the_codes_of_the_forward_pass)
{
    over_shapes_and_dtypes(swiglu_codes_case);
}

static void swiglu_backward_case(harness *h, int64_t rows, int64_t n, nd_dtype x_type,
                                 nd_dtype y_type)
{
    const nd_cview gate = nd_as_const(random_floats(h, x_type, rows, n, 4.0f));
    const nd_cview up = nd_as_const(random_floats(h, x_type, rows, n, 1.0f));
    const nd_cview dh = nd_as_const(random_floats(h, y_type, rows, n, 1.0f));
    const nd_cview w = nd_as_const(random_floats(h, ND_F32, 1, n, 1.0f));
    const nd_view r = random_scales(h, rows, 1), none = {0};
    outputs dgate = poisoned_outputs(h, ND_F64, y_type, rows, n);
    outputs dup = poisoned_outputs(h, ND_F64, y_type, rows, n);
    RUN(h, swiglu_backward, dgate.view[i], dup.view[i], dh, gate, up);
    check_close(h, "swiglu_backward dgate", &dgate, tolerance(y_type));
    check_close(h, "swiglu_backward dup", &dup, tolerance(y_type));
    const outputs dw = copied_outputs(h, ND_F64, nd_as_const(random_floats(h, ND_F32, 1, n, 1.0f)));
    RUN(h, swiglu_rmsnorm_backward, dgate.view[i], dup.view[i], dw.view[i], none, none, r, dh, gate,
        up, w);
    check_close(h, "swiglu_rmsnorm_backward dgate", &dgate, tolerance(y_type));
    check_close(h, "swiglu_rmsnorm_backward dup", &dup, tolerance(y_type));
    check_close(h, "swiglu_rmsnorm_backward dw", &dw, TOLERANCE_SUM);
    /* In place: the gradients lie over gate and up. */
    dgate = copied_outputs(h, ND_F64, gate);
    dup = copied_outputs(h, ND_F64, up);
    RUN(h, swiglu_rmsnorm_backward, dgate.view[i], dup.view[i], dw.view[i], none, none, r, dh,
        nd_as_const(dgate.view[i]), nd_as_const(dup.view[i]), w);
    check_close(h, "swiglu_rmsnorm_backward in place", &dgate, tolerance(x_type));
    check_close(h, "swiglu_rmsnorm_backward in place", &dup, tolerance(x_type));
}

Test(backend, swiglu_backward_agrees_with_the_reference)
{
    over_shapes_and_dtypes(swiglu_backward_case);
}

/* A GPU gives a block 48 KiB of shared memory, of which a reduction takes 128 bytes, unless it is
 * asked for more: 12256 floats and more of a row. */
Test(backend, norms_of_rows_that_just_fill_shared_memory_agree_with_the_reference)
{
    static const int64_t widths[] = {12256, 12257, 12288, 12289};
    harness h;
    harness_open(&h);
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        rmsnorm_backward_case(&h, 2, widths[i], ND_F32, ND_F32);
        swiglu_case(&h, 2, widths[i], ND_F32, ND_F32);
        swiglu_backward_case(&h, 2, widths[i], ND_F32, ND_F32);
        swiglu_codes_case(&h, 2, widths[i], ND_F32, ND_F32);
        harness_reset(&h);
    }
    harness_close(&h);
}

static void elementwise_case(harness *h, int64_t rows, int64_t n, nd_dtype x_type, nd_dtype y_type)
{
    const nd_cview x = nd_as_const(random_floats(h, x_type, rows, n, 1.0f));
    const nd_cview z = nd_as_const(random_floats(h, y_type, rows, n, 1.0f));
    const outputs y = poisoned_outputs(h, ND_F64, y_type, rows, n);
    RUN(h, add, y.view[i], x, z);
    check_close(h, "add", &y, tolerance(y_type));
    const outputs over = copied_outputs(h, ND_F64, x);
    RUN(h, add, over.view[i], nd_as_const(over.view[i]), z);
    check_close(h, "add in place", &over, tolerance(x_type));
    const outputs scaled = poisoned_outputs(h, ND_F64, y_type, rows, n);
    RUN(h, axpby, scaled.view[i], -1.5f, x, 0.0f);
    check_close(h, "axpby, beta 0", &scaled, tolerance(y_type));
    const outputs blend = copied_outputs(h, ND_F64, z);
    RUN(h, axpby, blend.view[i], 0.3f, x, 0.7f);
    check_close(h, "axpby", &blend, tolerance(y_type));
    const outputs sum = poisoned_outputs(h, ND_F64, ND_F64, 1, 1);
    RUN(h, sum_squares, sum.view[i], x);
    check_close(h, "sum_squares", &sum, 1e-12);
    const outputs unit = poisoned_outputs(h, ND_F64, y_type, rows, n);
    RUN(h, divide_by_norm, unit.view[i], x, nd_as_const(sum.view[i]), 1.01);
    check_close(h, "divide_by_norm", &unit, tolerance(y_type));
    RUN(h, sum, sum.view[i], x);
    cr_assert(fabs(*(double *)sum.view[0].data - *(double *)sum.view[1].data) < 1e-9);
    check_same_bits(h, "sum", &sum);
}

Test(backend, elementwise_ops_agree_with_the_reference)
{
    over_shapes_and_dtypes(elementwise_case);
}

Test(backend, sums_of_many_elements_do_not_depend_on_threads)
{
    harness h;
    harness_open(&h);
    const nd_cview x = nd_as_const(random_floats(&h, ND_F32, 300, 1001, 1.0f));
    const outputs sum = poisoned_outputs(&h, ND_F64, ND_F64, 1, 1);
    RUN(&h, sum_squares, sum.view[i], x);
    check_close(&h, "sum_squares", &sum, 1e-12);
    harness_close(&h);
}

Test(backend, rope_agrees_with_the_reference_in_both_styles_and_directions)
{
    harness h;
    harness_open(&h);
    for (int mix = 0; mix < 16; mix++) {
        const nd_rope_params params = {.style = mix & 1 ? ND_ROPE_PAIRS : ND_ROPE_HALVES,
                                       .head_dim = mix & 2 ? 64 : 6,
                                       .seq_len = 11,
                                       .start = mix & 4 ? 300 : 0,
                                       .base = 10000.0,
                                       .inverse = (mix & 8) != 0};
        for (int d = 0; d < 2; d++) {
            const nd_view start = random_floats(&h, float_dtypes[d], 33, 3 * params.head_dim, 1.0f);
            const outputs x = copied_outputs(&h, ND_F64, nd_as_const(start));
            RUN(&h, rope, x.view[i], &params);
            check_close(&h, "rope", &x, tolerance(float_dtypes[d]));
        }
        harness_reset(&h);
    }
    harness_close(&h);
}

static void codes_case(harness *h, int64_t rows, int64_t n, nd_dtype x_type, nd_dtype y_type)
{
    const nd_cview w = nd_as_const(random_floats(h, x_type, rows, n, 0.02f));
    const int64_t groups[] = {0, 1, n % 5 == 0 ? 5 : n};
    for (int g = 0; g < 3; g++) {
        const outputs c = poisoned_outputs(h, ND_I8, ND_I8, rows, n);
        const outputs s =
            poisoned_outputs(h, ND_F32, ND_F32, groups[g] ? rows : 1, groups[g] ? groups[g] : 1);
        RUN(h, ternarize, c.view[i], s.view[i], w);
        check_equal(h, "ternarize c", &c);
        check_equal(h, "ternarize s", &s);
        const outputs back = poisoned_outputs(h, ND_F64, y_type, rows, n);
        RUN(h, dequantize_codes, back.view[i], nd_as_const(c.view[i]), nd_as_const(s.view[i]));
        check_close(h, "dequantize_codes", &back, tolerance(y_type));
        const outputs packed = poisoned_outputs(h, ND_U8, ND_U8, 1, (rows * n + 3) / 4);
        RUN(h, pack_codes, packed.view[i], nd_as_const(c.view[i]));
        check_equal(h, "pack_codes", &packed);
        const outputs unpacked = poisoned_outputs(h, ND_I8, ND_I8, rows, n);
        RUN(h, unpack_codes, unpacked.view[i], nd_as_const(packed.view[i]));
        check_equal(h, "unpack_codes", &unpacked);
        cr_assert(memcmp(unpacked.view[1].data, c.view[1].data, (size_t)(rows * n)) == 0);
        const outputs trits = poisoned_outputs(h, ND_U8, ND_U8, 1, (rows * n + 4) / 5);
        RUN(h, pack_trits, trits.view[i], nd_as_const(c.view[i]));
        check_equal(h, "pack_trits", &trits);
        const outputs told = poisoned_outputs(h, ND_I8, ND_I8, rows, n);
        RUN(h, unpack_trits, told.view[i], nd_as_const(trits.view[i]));
        check_equal(h, "unpack_trits", &told);
        cr_assert(memcmp(told.view[1].data, c.view[1].data, (size_t)(rows * n)) == 0);
    }
    const nd_view x = random_floats(h, x_type, rows, n, 3.0f);
    for (int64_t i = 0; i < n; i++)
        set_element(x, i, 0.0); /* a row of zeros */
    const outputs q = poisoned_outputs(h, ND_I8, ND_I8, rows, n);
    const outputs a = poisoned_outputs(h, ND_F32, ND_F32, rows, 1);
    RUN(h, quantize_rows, q.view[i], a.view[i], nd_as_const(x));
    check_equal(h, "quantize_rows q", &q);
    check_equal(h, "quantize_rows a", &a);
}

Test(backend, codes_equal_the_reference)
{
    over_shapes_and_dtypes(codes_case);
}

/* The row's scale is not finite and its codes are zeros; other rows do not notice. */
static void check_not_finite(const char *op, const outputs *q, const outputs *a, int64_t bad)
{
    for (int i = 0; i < 2; i++)
        for (int64_t t = 0; t < q->view[i].rows; t++) {
            cr_assert_eq(isfinite(((const float *)a->view[i].data)[t]) == 0, t == bad,
                         "%s: row %lld of %d", op, (long long)t, i);
            for (int64_t k = 0; t == bad && k < q->view[i].cols; k++)
                cr_assert_eq(((const int8_t *)q->view[i].data)[t * q->view[i].cols + k], 0);
        }
}

Test(backend, codes_of_a_row_that_is_not_finite_have_a_scale_that_says_so)
{
    enum { ROWS = 5, N = 131, BAD = 3 };
    static const double values[] = {NAN, -NAN, INFINITY, -INFINITY};
    harness h;
    harness_open(&h);
    const nd_cview w = nd_as_const(random_floats(&h, ND_F32, 1, N, 1.0f));
    for (size_t v = 0; v < sizeof values / sizeof *values; v++)
        for (int at = 0; at < N; at += 65) {
            const nd_view x = random_floats(&h, ND_F32, ROWS, N, 3.0f);
            const nd_cview up = nd_as_const(random_floats(&h, ND_F32, ROWS, N, 3.0f));
            const outputs q = poisoned_outputs(&h, ND_I8, ND_I8, ROWS, N);
            const outputs a = poisoned_outputs(&h, ND_F32, ND_F32, ROWS, 1);
            const outputs r = poisoned_outputs(&h, ND_F64, ND_F32, ROWS, 1);
            set_element(x, BAD * N + at, values[v]);
            RUN(&h, quantize_rows, q.view[i], a.view[i], nd_as_const(x));
            check_not_finite("quantize_rows", &q, &a, BAD);
            RUN(&h, rmsnorm_quantize, q.view[i], a.view[i], r.view[i], nd_as_const(x), w);
            check_not_finite("rmsnorm_quantize", &q, &a, BAD);
            RUN(&h, swiglu_rmsnorm_quantize, q.view[i], a.view[i], r.view[i], up, nd_as_const(x),
                w);
            check_not_finite("swiglu_rmsnorm_quantize", &q, &a, BAD);
        }
    harness_close(&h);
}

Test(backend, embedding_and_its_gradient_agree_with_the_reference)
{
    harness h;
    harness_open(&h);
    for (int mix = 0; mix < 4; mix++) {
        const nd_dtype table_type = float_dtypes[mix & 1], x_type = float_dtypes[mix >> 1];
        const int64_t vocab = 50, tokens = 333, n = mix & 1 ? 129 : 64;
        const nd_cview table = nd_as_const(random_floats(&h, table_type, vocab, n, 1.0f));
        const nd_cview ids = nd_as_const(random_integers(&h, ND_I32, 1, tokens, 0, 49));
        const outputs x = poisoned_outputs(&h, ND_F64, x_type, tokens, n);
        RUN(&h, embedding, x.view[i], table, ids);
        check_close(&h, "embedding", &x, tolerance(x_type));
        const nd_cview dx = nd_as_const(random_floats(&h, x_type, tokens, n, 1.0f));
        const nd_cview start = nd_as_const(random_floats(&h, ND_F32, vocab, n, 1.0f));
        const outputs dtable = copied_outputs(&h, ND_F64, start);
        RUN(&h, embedding_backward, dtable.view[i], dx, ids);
        check_close(&h, "embedding_backward", &dtable, TOLERANCE_F32);
        harness_reset(&h);
    }
    harness_close(&h);
}

Test(backend, tokens_outside_the_vocabulary_are_refused)
{
    harness h;
    harness_open(&h);
    const nd_cview table = nd_as_const(random_floats(&h, ND_F32, 10, 4, 1.0f));
    const nd_cview ids = nd_as_const(random_integers(&h, ND_I32, 1, 3, 10, 10));
    const nd_view x = poisoned(&h, ND_F32, 3, 4);
    for (int i = 0; i < BACKENDS; i++)
        ND_ASSERT_FAILS(h.backend[i]->ops.embedding(h.backend[i], x, table, ids), ND_EINTERNAL,
                        "token 10 at position 0");
    harness_close(&h);
}

static void check_untouched(const outputs *out, nd_cview start)
{
    for (int i = 0; i < BACKENDS; i++)
        for (int64_t j = 0; j < nd_view_count(start); j++)
            cr_assert_eq(nd_load(nd_as_const(out->view[i]), j), nd_load(start, j));
}

static void cross_entropy_case(harness *h, int64_t rows, int64_t vocab, nd_dtype type,
                               nd_dtype ignored)
{
    const nd_cross_entropy_params params[] = {{.gradient_scale = 1.0f},
                                              {.label_smoothing = 0.1f,
                                               .z_loss_weight = 1e-3f,
                                               .entropy_weight = 0.05f,
                                               .gradient_scale = 0.25f},
                                              {.label_smoothing = 0.1f,
                                               .gradient_scale = 1.0f,
                                               .offsets = 3,
                                               .offset_weight = {1.0f, 0.5f, 0.25f}},
                                              {.z_loss_weight = 1e-3f, .gradient_scale = 0.0f}};
    for (int c = 0; c < 6; c++) { /* 4: factors of rows, and norms of errors; 5: dlogits apart */
        const int p = c % 4, offsets = nd_cross_entropy_offsets(&params[p]);
        const nd_cview weight = nd_as_const(random_floats(h, ND_F32, rows, 1, 2.0f));
        const nd_cview start = nd_as_const(random_floats(h, type, rows, vocab, 5.0f));
        const outputs logits = copied_outputs(h, ND_F64, start);
        const nd_cview ids =
            nd_as_const(random_integers(h, ND_I32, rows, offsets, -1, (int)vocab - 1));
        const outputs nll =
            poisoned_outputs(h, ND_F64, ignored == ND_F32 ? ND_F32 : ND_F64, rows, 1);
        const outputs total = poisoned_outputs(h, ND_F64, ND_F32, rows, 1);
        const outputs norm = poisoned_outputs(h, ND_F64, ND_F32, rows, 1);
        const outputs apart = poisoned_outputs(h, ND_F64, ND_BF16, rows, vocab);
        nd_cross_entropy_params of[BACKENDS];
        for (int i = 0; i < BACKENDS; i++) {
            of[i] = params[p];
            if (c == 4) {
                of[i].norm = norm.view[i];
                of[i].weight = weight;
            }
            if (c == 5)
                of[i].gradient = apart.view[i];
        }
        RUN(h, cross_entropy, nll.view[i], total.view[i], logits.view[i], ids, &of[i]);
        if (vocab == 1)
            continue; /* every result is zero up to rounding */
        check_close(h, "cross_entropy nll", &nll, TOLERANCE_F32);
        check_close(h, "cross_entropy total", &total, TOLERANCE_F32);
        if (c == 4)
            check_close(h, "cross_entropy norm", &norm, TOLERANCE_F32);
        if (params[p].gradient_scale == 0.0f || c == 5)
            check_untouched(&logits, start);
        if (c == 5)
            check_close(h, "cross_entropy dlogits apart", &apart, TOLERANCE_BF16);
        else if (params[p].gradient_scale != 0.0f)
            check_close(h, "cross_entropy dlogits", &logits,
                        type == ND_BF16 ? TOLERANCE_BF16 : 3e-6);
    }
}

Test(backend, cross_entropy_agrees_with_the_reference)
{
    over_shapes_and_dtypes(cross_entropy_case);
}
