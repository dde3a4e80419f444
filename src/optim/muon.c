#include "optim/muon.h"

#include <math.h>

/* X <- a X + b (XXᵀ)X + c (XXᵀ)²X */
typedef struct quintic {
    float a, b, c;
} quintic;

/* Newton-Schulz: one polynomial, repeated (Jordan et al. 2024). */
static const quintic newton_schulz = {3.4445f, -4.7750f, 2.0315f};

/* Polar Express (arXiv:2505.16932): the best polynomial for each iteration, for singular values in
 * [1e-3, 1]. The last is the limit of the sequence, with a fixed point at 1, and repeats. */
static const quintic polar_express[] = {
    {8.15655f, -22.48329f, 15.87877f}, {4.04293f, -2.80892f, 0.50002f},
    {3.89167f, -2.77248f, 0.50606f},   {3.28575f, -2.36813f, 0.46449f},
    {2.34654f, -1.70978f, 0.42324f},   {1.875f, -1.25f, 0.375f}};
enum { POLAR_EXPRESS_COUNT = sizeof polar_express / sizeof polar_express[0] };

/* Margin above 1 for the bf16 rounding of the norm. */
static const double polar_express_margin = 1.01;

static quintic polynomial(nd_orthogonalization method, int iteration)
{
    if (method == ND_ORTHOGONALIZATION_NEWTON_SCHULZ)
        return newton_schulz;
    return polar_express[iteration < POLAR_EXPRESS_COUNT ? iteration : POLAR_EXPRESS_COUNT - 1];
}

/* c = x y for symmetric matrices that commute. */
static nd_status multiply(nd_backend *b, nd_view c, nd_view x, nd_view y)
{
    return b->ops.gemm_symmetric(b, c, nd_as_const(x), false, nd_as_const(y), 1.0f, 0.0f, 0.0f);
}

/* XXᵀ or XᵀX, whichever is smaller. */
static nd_status gram_of(nd_backend *b, nd_view gram, nd_view x)
{
    return b->ops.gemm_symmetric(b, gram, nd_as_const(x), x.rows > x.cols, nd_as_const(x), 1.0f,
                                 0.0f, 0.0f);
}

/* factor = aI + bA + cA². */
static nd_status factor_of(nd_backend *b, nd_view factor, nd_view gram, quintic p)
{
    return b->ops.gemm_symmetric(b, factor, nd_as_const(gram), false, nd_as_const(gram), p.c, p.b,
                                 p.a);
}

/* y = factor x or x factor, on x's smaller side. */
static nd_status apply_factor(nd_backend *b, nd_view y, nd_view factor, nd_view x)
{
    const nd_cview f = nd_as_const(factor), of = nd_as_const(x);
    return x.rows <= x.cols ? b->ops.gemm(b, y, f, false, of, false, 1.0f, 0.0f)
                            : b->ops.gemm(b, y, of, false, f, false, 1.0f, 0.0f);
}

/* One iteration from x to y. */
static nd_status iterate(nd_backend *b, quintic p, nd_view x, nd_view y, const nd_view square[2])
{
    ND_TRY(gram_of(b, square[0], x));
    ND_TRY(factor_of(b, square[1], square[0], p));
    return apply_factor(b, y, square[1], x);
}

/* Iterates on G = XXᵀ (or XᵀX) alone, for matrices at least GRAM_RATIO times as long as wide: the
 * long side is used only to compute G and the result. With F = aI + bG + cG²
 *
 *   X' = F X,   G' = F² G,
 *
 * and N, the product of all F. All are symmetric. At 512 x 1792 this takes 0.48 of the operations,
 * at 256 x 512 0.66. Rounding errors of G grow twelvefold per iteration, to 1e-4 of the result at
 * that size and 3e-3 at 12 x 48; an eigenvalue that they make negative would diverge some
 * iterations later, so G is computed anew after GRAM_ITERATIONS. Only in f32: in bf16 errors are
 * too large, also if begun anew after two iterations (docs/throughput.md). */
enum { GRAM_RATIO = 2, GRAM_ITERATIONS = 5 };

static void swap(nd_view *x, nd_view *y)
{
    const nd_view kept = *x;
    *x = *y;
    *y = kept;
}

/* Iterations [first, end) from x to y. `spare`: the memory of an x in f32. */
static nd_status iterate_gram(nd_backend *b, nd_orthogonalization method, int first, int end,
                              nd_view x, nd_view y, float *spare, const nd_view square[2])
{
    const int64_t side = square[0].rows;
    nd_view g = square[0], n = square[1], f = nd_view_of(spare, ND_F32, side, side),
            product = nd_view_of(spare + side * side, ND_F32, side, side);
    ND_TRY(gram_of(b, g, x));
    for (int i = first; i < end; i++) {
        ND_TRY(factor_of(b, f, g, polynomial(method, i)));
        ND_TRY(i == first ? b->ops.axpby(b, product, 1.0f, nd_as_const(f), 0.0f)
                          : multiply(b, product, n, f));
        swap(&n, &product);
        if (i + 1 == end)
            break;
        ND_TRY(multiply(b, product, f, f));
        ND_TRY(multiply(b, f, product, g));
        swap(&g, &f);
    }
    return apply_factor(b, y, n, x);
}

nd_status nd_muon_orthogonalize(nd_backend *b, nd_orthogonalization method, int iterations,
                                const nd_muon_scratch *s, nd_view *o)
{
    const double margin = method == ND_ORTHOGONALIZATION_POLAR_EXPRESS ? polar_express_margin : 1.0;
    const int64_t rows = s->update.rows, cols = s->update.cols, side = rows < cols ? rows : cols;
    const nd_view square[2] = {nd_view_shaped(s->gram[0], side, side),
                               nd_view_shaped(s->gram[1], side, side)};
    ND_TRY(b->ops.sum_squares(b, s->norm, nd_as_const(s->update)));
    ND_TRY(b->ops.divide_by_norm(b, s->x[0], nd_as_const(s->update), nd_as_const(s->norm), margin));
    const bool by_gram =
        s->x[0].dtype == ND_F32 && (rows >= GRAM_RATIO * side || cols >= GRAM_RATIO * side);
    const int step = by_gram ? GRAM_ITERATIONS : 1;
    int at = 0;
    for (int i = 0; i < iterations; i += step, at ^= 1) {
        const nd_view x = s->x[at], y = s->x[at ^ 1];
        const int end = i + step < iterations ? i + step : iterations;
        ND_TRY(by_gram ? iterate_gram(b, method, i, end, x, y, s->update.data, square)
                       : iterate(b, polynomial(method, i), x, y, square));
    }
    *o = s->x[at];
    return ND_OK;
}

nd_muon_scratch nd_muon_scratch_shaped(const nd_muon_scratch *s, int64_t rows, int64_t cols)
{
    nd_muon_scratch out = *s;
    out.update = nd_view_shaped(s->update, rows, cols);
    for (int i = 0; i < 2; i++)
        out.x[i] = nd_view_shaped(s->x[i], rows, cols);
    return out;
}

nd_status nd_muon_direction(nd_backend *b, const nd_state *state, nd_cview g,
                            const nd_muon_params *p, const nd_muon_scratch *scratch, nd_view *o)
{
    const nd_muon_scratch s = nd_muon_scratch_shaped(scratch, state->rows, state->cols);
    nd_view m;
    ND_TRY(state->codec->load(b, state, &s.state, s.momentum, &m));
    ND_TRY(b->ops.momentum(b, s.update, m, g, p->momentum, p->gradient_scale, p->nesterov));
    ND_TRY(state->codec->store(b, state, &s.state, m));
    return nd_muon_orthogonalize(b, p->method, p->iterations, &s, o);
}

nd_status nd_muon_apply(nd_backend *b, nd_view w, nd_cview o, const nd_muon_params *p)
{
    const float scale = 0.2f * sqrtf((float)(w.rows > w.cols ? w.rows : w.cols));
    const nd_update_params update = {
        .step_size = p->learning_rate * scale,
        .decay = p->learning_rate * p->weight_decay,
        .cautious_decay = p->cautious_decay,
        .rounding_key = p->rounding_key,
    };
    return b->ops.apply_update(b, w, o, &update);
}

nd_status nd_muon_update(nd_backend *b, nd_view w, const nd_state *state, nd_cview g,
                         const nd_muon_params *p, const nd_muon_scratch *scratch)
{
    nd_view o;
    ND_TRY(nd_muon_direction(b, state, g, p, scratch, &o));
    return nd_muon_apply(b, w, nd_as_const(o), p);
}

double nd_muon_flops(int64_t rows, int64_t cols, int iterations)
{
    const double m = (double)(rows < cols ? rows : cols), n = (double)(rows < cols ? cols : rows);
    return iterations * (4.0 * m * m * n + 2.0 * m * m * m);
}
