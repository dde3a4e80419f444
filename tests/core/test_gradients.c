/* The backward ops of the reference, in double, against central differences and adjoints. The fast
 * layer is compared with the reference elsewhere. */
#include "core/conformance.h"

static const double GRADIENT_TOLERANCE = 1e-6;

/* The loss sum_i weight_i output_i of some forward, as a function of one of its inputs. */
typedef double (*loss_function)(nd_backend *b, const void *context);

static double weighted(nd_cview output, nd_cview weight)
{
    double sum = 0.0;
    for (int64_t i = 0; i < nd_view_count(output); i++)
        sum += nd_load(output, i) * nd_load(weight, i);
    return sum;
}

/* Compares `gradient` with the central differences of `loss` in each element of `x` (f64). */
static void check_gradient(const char *what, nd_backend *b, loss_function loss, const void *context,
                           nd_view x, nd_view gradient)
{
    const double step = 1e-5;
    double *values = x.data;
    double difference = 0.0, norm = 0.0;
    for (int64_t i = 0; i < x.rows * x.cols; i++) {
        const double kept = values[i];
        values[i] = kept + step;
        const double above = loss(b, context);
        values[i] = kept - step;
        const double below = loss(b, context);
        values[i] = kept;
        const double numeric = (above - below) / (2.0 * step);
        const double d = nd_load(nd_as_const(gradient), i) - numeric;
        difference += d * d;
        norm += numeric * numeric;
    }
    const double error = sqrt(difference / norm);
    cr_assert(error <= GRADIENT_TOLERANCE, "%s: relative error %.3g", what, error);
}

static nd_view zeros(harness *h, int64_t rows, int64_t cols)
{
    const nd_view v = poisoned(h, ND_F64, rows, cols);
    memset(v.data, 0, (size_t)(rows * cols) * sizeof(double));
    return v;
}

typedef struct row_context {
    nd_view x, up, w; /* the inputs */
    nd_view hidden, r, y;
    nd_cview weight; /* dy */
} row_context;

static row_context random_rows(harness *h, int64_t rows, int64_t n)
{
    return (row_context){.x = random_floats(h, ND_F64, rows, n, 1.5f),
                         .up = random_floats(h, ND_F64, rows, n, 1.0f),
                         .w = random_floats(h, ND_F64, 1, n, 1.0f),
                         .hidden = poisoned(h, ND_F64, rows, n),
                         .r = poisoned(h, ND_F64, rows, 1),
                         .y = poisoned(h, ND_F64, rows, n),
                         .weight = nd_as_const(random_floats(h, ND_F64, rows, n, 1.0f))};
}

static double rmsnorm_loss(nd_backend *b, const void *context)
{
    const row_context *c = context;
    ND_ASSERT_OK(b->ops.rmsnorm(b, c->y, c->r, nd_as_const(c->x), nd_as_const(c->w)));
    return weighted(nd_as_const(c->y), c->weight);
}

static double swiglu_loss(nd_backend *b, const void *context)
{
    const row_context *c = context;
    ND_ASSERT_OK(b->ops.swiglu(b, c->y, nd_as_const(c->x), nd_as_const(c->up)));
    return weighted(nd_as_const(c->y), c->weight);
}

static double swiglu_rmsnorm_loss(nd_backend *b, const void *context)
{
    const row_context *c = context;
    ND_ASSERT_OK(b->ops.swiglu(b, c->hidden, nd_as_const(c->x), nd_as_const(c->up)));
    ND_ASSERT_OK(b->ops.rmsnorm(b, c->y, c->r, nd_as_const(c->hidden), nd_as_const(c->w)));
    return weighted(nd_as_const(c->y), c->weight);
}

Test(gradients, rmsnorm_backward_is_the_gradient)
{
    harness h;
    harness_open(&h);
    nd_backend *b = h.backend[0];
    row_context c = random_rows(&h, 3, 11);
    const nd_view dx = zeros(&h, 3, 11), dw = zeros(&h, 1, 11);
    rmsnorm_loss(b, &c);
    ND_ASSERT_OK(b->ops.rmsnorm_backward(b, dx, dw, c.weight, nd_as_const(c.x), nd_as_const(c.w),
                                         nd_as_const(c.r), 0.0f));
    check_gradient("dx", b, rmsnorm_loss, &c, c.x, dx);
    check_gradient("dw", b, rmsnorm_loss, &c, c.w, dw);
    harness_close(&h);
}

Test(gradients, swiglu_backward_is_the_gradient)
{
    harness h;
    harness_open(&h);
    nd_backend *b = h.backend[0];
    row_context c = random_rows(&h, 3, 11);
    const nd_view dgate = zeros(&h, 3, 11), dup = zeros(&h, 3, 11);
    ND_ASSERT_OK(
        b->ops.swiglu_backward(b, dgate, dup, c.weight, nd_as_const(c.x), nd_as_const(c.up)));
    check_gradient("dgate", b, swiglu_loss, &c, c.x, dgate);
    check_gradient("dup", b, swiglu_loss, &c, c.up, dup);
    harness_close(&h);
}

Test(gradients, swiglu_rmsnorm_backward_is_the_gradient)
{
    harness h;
    harness_open(&h);
    nd_backend *b = h.backend[0];
    row_context c = random_rows(&h, 3, 11);
    const nd_view dgate = zeros(&h, 3, 11), dup = zeros(&h, 3, 11), dw = zeros(&h, 1, 11);
    swiglu_rmsnorm_loss(b, &c);
    ND_ASSERT_OK(b->ops.swiglu_rmsnorm_backward(b, dgate, dup, dw, (nd_view){0}, (nd_view){0}, c.r,
                                                c.weight, nd_as_const(c.x), nd_as_const(c.up),
                                                nd_as_const(c.w)));
    check_gradient("dgate", b, swiglu_rmsnorm_loss, &c, c.x, dgate);
    check_gradient("dup", b, swiglu_rmsnorm_loss, &c, c.up, dup);
    check_gradient("dw", b, swiglu_rmsnorm_loss, &c, c.w, dw);
    harness_close(&h);
}

typedef struct attention_context {
    nd_attention_shape shape;
    nd_view q, k, v, o, lse;
    nd_cview weight;
} attention_context;

static double attention_loss(nd_backend *b, const void *context)
{
    const attention_context *c = context;
    ND_ASSERT_OK(b->ops.attention(b, c->o, c->lse, nd_as_const(c->q), nd_as_const(c->k),
                                  nd_as_const(c->v), &c->shape));
    return weighted(nd_as_const(c->o), c->weight);
}

Test(gradients, attention_backward_is_the_gradient)
{
    harness h;
    harness_open(&h);
    nd_backend *b = h.backend[0];
    const nd_attention_shape shapes[] = {{2, 4, 4, 4, 2, 3, {0}}, {1, 2, 6, 3, 1, 4, {0}}};
    for (int i = 0; i < 2; i++) {
        const nd_attention_shape s = shapes[i];
        const int64_t queries = s.sequences * s.query_len, keys = s.sequences * s.key_len;
        const int64_t width = s.heads * s.head_dim, kv_width = s.kv_heads * s.head_dim;
        const attention_context c = {
            .shape = s,
            .q = random_floats(&h, ND_F64, queries, width, 1.0f),
            .k = random_floats(&h, ND_F64, keys, kv_width, 1.0f),
            .v = random_floats(&h, ND_F64, keys, kv_width, 1.0f),
            .o = poisoned(&h, ND_F64, queries, width),
            .lse = poisoned(&h, ND_F64, queries, s.heads),
            .weight = nd_as_const(random_floats(&h, ND_F64, queries, width, 1.0f))};
        attention_loss(b, &c);
        const nd_view dq = poisoned(&h, ND_F64, queries, width);
        const nd_view dk = poisoned(&h, ND_F64, keys, kv_width);
        const nd_view dv = poisoned(&h, ND_F64, keys, kv_width);
        ND_ASSERT_OK(b->ops.attention_backward(b, dq, dk, dv, c.weight, nd_as_const(c.o),
                                               nd_as_const(c.lse), nd_as_const(c.q),
                                               nd_as_const(c.k), nd_as_const(c.v), &s));
        check_gradient("dq", b, attention_loss, &c, c.q, dq);
        check_gradient("dk", b, attention_loss, &c, c.k, dk);
        check_gradient("dv", b, attention_loss, &c, c.v, dv);
    }
    harness_close(&h);
}

typedef struct loss_context {
    nd_view x, logits, nll, total; /* logits are overwritten by each evaluation */
    nd_view targets;
    nd_cross_entropy_params params;
} loss_context;

static double cross_entropy_loss(nd_backend *b, const void *context)
{
    const loss_context *c = context;
    memcpy(c->logits.data, c->x.data, nd_view_bytes(nd_as_const(c->x)));
    ND_ASSERT_OK(
        b->ops.cross_entropy(b, c->nll, c->total, c->logits, nd_as_const(c->targets), &c->params));
    double sum = 0.0;
    for (int64_t t = 0; t < c->total.rows; t++)
        sum += nd_load(nd_as_const(c->total), t);
    return (double)c->params.gradient_scale * sum;
}

Test(gradients, cross_entropy_gives_the_gradient_of_its_total)
{
    harness h;
    harness_open(&h);
    nd_backend *b = h.backend[0];
    for (int terms = 0; terms < 8; terms++) {
        const loss_context c = {.x = random_floats(&h, ND_F64, 4, 9, 2.0f),
                                .logits = poisoned(&h, ND_F64, 4, 9),
                                .nll = poisoned(&h, ND_F64, 4, 1),
                                .total = poisoned(&h, ND_F64, 4, 1),
                                .targets = random_integers(&h, ND_I32, 1, 4, -1, 8),
                                .params = {.label_smoothing = terms & 1 ? 0.1f : 0.0f,
                                           .z_loss_weight = terms & 2 ? 0.01f : 0.0f,
                                           .entropy_weight = terms & 4 ? 0.1f : 0.0f,
                                           .gradient_scale = 0.5f}};
        set_element(c.targets, 0, 3.0); /* at least one row counts */
        cross_entropy_loss(b, &c);
        const nd_view gradient = poisoned(&h, ND_F64, 4, 9);
        memcpy(gradient.data, c.logits.data, nd_view_bytes(nd_as_const(gradient)));
        check_gradient("dlogits", b, cross_entropy_loss, &c, c.x, gradient);
    }
    harness_close(&h);
}

static void check_adjoint(const char *what, double left, double right, double scale)
{
    cr_assert(fabs(left - right) <= GRADIENT_TOLERANCE * scale, "%s: %.12g and %.12g", what, left,
              right);
}

/* <dy, A x> = <Aᵀ dy, x> and, for the same y as a function of W, <dy, x̂ Wᵀ> = <dW, W>. */
static void check_ternary_adjoints(harness *h, int64_t groups)
{
    nd_backend *b = h->backend[0];
    const int64_t tokens = 5, out = 7, in = 12;
    const nd_cview c = nd_as_const(random_integers(h, ND_I8, out, in, -1, 1));
    const nd_cview s = nd_as_const(random_scales(h, groups ? out : 1, groups ? groups : 1));
    const nd_cview q = nd_as_const(random_integers(h, ND_I8, tokens, in, -128, 127));
    const nd_cview a = nd_as_const(random_scales(h, tokens, 1));
    const nd_cview dy = nd_as_const(random_floats(h, ND_F64, tokens, out, 1.0f));
    const nd_view x = poisoned(h, ND_F64, tokens, in), y = poisoned(h, ND_F64, tokens, out);
    const nd_view again = poisoned(h, ND_F64, tokens, out), weight = poisoned(h, ND_F64, out, in);
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t i = 0; i < in; i++)
            set_element(x, t * in + i, nd_load(q, t * in + i) * nd_load(a, t) / 127.0);
    ND_ASSERT_OK(b->ops.ternary_gemm(b, y, q, a, c, s));
    ND_ASSERT_OK(b->ops.dequantize_codes(b, weight, c, s));
    ND_ASSERT_OK(
        b->ops.gemm(b, again, nd_as_const(x), false, nd_as_const(weight), true, 1.0f, 0.0f));
    cr_assert(relative_error(nd_as_const(y), nd_as_const(again)) < 1e-12);
    const nd_view dx = poisoned(h, ND_F64, tokens, in), dw = poisoned(h, ND_F64, out, in);
    ND_ASSERT_OK(b->ops.ternary_gemm_dx(b, dx, dy, c, s, 0.0f));
    ND_ASSERT_OK(b->ops.ternary_gemm_dw(b, dw, dy, q, a, 0.0f));
    const double value = weighted(nd_as_const(y), dy);
    check_adjoint("ternary_gemm_dx", weighted(nd_as_const(dx), nd_as_const(x)), value, fabs(value));
    check_adjoint("ternary_gemm_dw", weighted(nd_as_const(dw), nd_as_const(weight)), value,
                  fabs(value));
}

Test(gradients, ternary_products_are_adjoint)
{
    harness h;
    harness_open(&h);
    check_ternary_adjoints(&h, 0);
    check_ternary_adjoints(&h, 3);
    harness_close(&h);
}

Test(gradients, embedding_backward_is_the_adjoint_of_embedding)
{
    harness h;
    harness_open(&h);
    nd_backend *b = h.backend[0];
    const nd_cview table = nd_as_const(random_floats(&h, ND_F64, 6, 5, 1.0f));
    const nd_cview tokens = nd_as_const(random_integers(&h, ND_I32, 1, 20, 0, 5));
    const nd_cview dx = nd_as_const(random_floats(&h, ND_F64, 20, 5, 1.0f));
    const nd_view x = poisoned(&h, ND_F64, 20, 5), dtable = zeros(&h, 6, 5);
    ND_ASSERT_OK(b->ops.embedding(b, x, table, tokens));
    ND_ASSERT_OK(b->ops.embedding_backward(b, dtable, dx, tokens));
    const double value = weighted(nd_as_const(x), dx);
    check_adjoint("embedding", weighted(nd_as_const(dtable), table), value, fabs(value));
    harness_close(&h);
}

Test(gradients, rope_inverse_is_its_adjoint_and_its_inverse)
{
    harness h;
    harness_open(&h);
    nd_backend *b = h.backend[0];
    for (int style = 0; style < 2; style++) {
        nd_rope_params p = {.style = style ? ND_ROPE_PAIRS : ND_ROPE_HALVES,
                            .head_dim = 6,
                            .seq_len = 4,
                            .start = 3,
                            .base = 100.0};
        const nd_cview start = nd_as_const(random_floats(&h, ND_F64, 8, 12, 1.0f));
        const nd_cview dy = nd_as_const(random_floats(&h, ND_F64, 8, 12, 1.0f));
        const nd_view x = poisoned(&h, ND_F64, 8, 12), dx = poisoned(&h, ND_F64, 8, 12);
        memcpy(x.data, start.data, nd_view_bytes(start));
        memcpy(dx.data, dy.data, nd_view_bytes(dy));
        ND_ASSERT_OK(b->ops.rope(b, x, &p));
        const double value = weighted(nd_as_const(x), dy);
        p.inverse = true;
        ND_ASSERT_OK(b->ops.rope(b, dx, &p));
        check_adjoint("rope", weighted(nd_as_const(dx), start), value, fabs(value));
        ND_ASSERT_OK(b->ops.rope(b, x, &p));
        cr_assert(relative_error(nd_as_const(x), start) < 1e-14);
    }
    harness_close(&h);
}
