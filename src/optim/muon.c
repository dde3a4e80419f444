#include "optim/muon.h"

#include <math.h>

/* X <- a X + b (XXᵀ)X + c (XXᵀ)²X */
typedef struct quintic {
    float a, b, c;
} quintic;

/* Newton-Schulz: one polynomial, repeated (Jordan et al. 2024). */
static const quintic newton_schulz = {3.4445f, -4.7750f, 2.0315f};

/* Polar Express: the best polynomial for each iteration in turn (arXiv:2505.16932), for singular
 * values in [1e-3, 1]. The last is the one the sequence tends to, which has a fixed point at 1; it
 * repeats. */
static const quintic polar_express[] = {
    {8.15655f, -22.48329f, 15.87877f}, {4.04293f, -2.80892f, 0.50002f},
    {3.89167f, -2.77248f, 0.50606f},   {3.28575f, -2.36813f, 0.46449f},
    {2.34654f, -1.70978f, 0.42324f},   {1.875f, -1.25f, 0.375f}};
enum { POLAR_EXPRESS_COUNT = sizeof polar_express / sizeof polar_express[0] };

/* Room above 1 that bf16 rounding of the norm may need. */
static const double polar_express_margin = 1.01;

static quintic polynomial(nd_orthogonalization method, int iteration)
{
    if (method == ND_ORTHOGONALIZATION_NEWTON_SCHULZ)
        return newton_schulz;
    return polar_express[iteration < POLAR_EXPRESS_COUNT ? iteration : POLAR_EXPRESS_COUNT - 1];
}

/* One iteration from x into y. A = XXᵀ or XᵀX; B = bA + cA²; Y = aX + BX or aX + XB. */
static nd_status iterate(nd_backend *b, quintic p, nd_view x, nd_view y, const nd_view gram[2])
{
    const bool wide = x.rows <= x.cols;
    const int64_t side = wide ? x.rows : x.cols;
    const nd_view a = nd_view_of(gram[0].data, gram[0].dtype, side, side);
    const nd_view squared = nd_view_of(gram[1].data, gram[1].dtype, side, side);
    ND_TRY(b->ops.gemm_symmetric(b, a, nd_as_const(x), !wide, 1.0f));
    ND_TRY(b->ops.gemm_symmetric(b, squared, nd_as_const(a), false, p.c));
    ND_TRY(b->ops.axpby(b, squared, p.b, nd_as_const(a), 1.0f));
    ND_TRY(b->ops.axpby(b, y, p.a, nd_as_const(x), 0.0f));
    if (wide)
        return b->ops.gemm(b, y, nd_as_const(squared), false, nd_as_const(x), false, 1.0f, 1.0f);
    return b->ops.gemm(b, y, nd_as_const(x), false, nd_as_const(squared), false, 1.0f, 1.0f);
}

/* The iterations on G = XXᵀ (or XᵀX) alone, of a matrix at least GRAM_RATIO times as long as wide: they need
 * the long side only to make G and for the result. With B = bG + cG²
 *
 *   X' = (aI + B) X,   G' = (aI + B)² G = a²G + (2aB + B²) G,
 *
 * and the product of all (aI + B) is kept as alpha I + M. At 512 x 1792 this takes 0.62 of the operations. In
 * f32 only: what rounding adds to G grows twelvefold an iteration, to 1e-4 of the result at that
 * size and 3e-3 at 12 x 48; bf16 would not bear it. */
enum { GRAM_RATIO = 3 };

static nd_status iterate_gram(nd_backend *b, nd_orthogonalization method, int iterations,
                              const nd_muon_scratch *s, nd_view *o)
{
    const nd_view x = s->x[0];
    const bool wide = x.rows <= x.cols;
    const int64_t side = wide ? x.rows : x.cols;
    nd_view square[2 + GRAM_RATIO];
    for (int i = 0; i < 2 + GRAM_RATIO; i++)
        square[i] =
            nd_view_of(i < 2 ? s->gram[i].data : (float *)s->x[1].data + (i - 2) * side * side,
                       ND_F32, side, side);
    nd_view g = square[0], m = square[1], free[3] = {square[2], square[3], square[4]};
    double alpha = 1.0;
    ND_TRY(b->ops.gemm_symmetric(b, g, nd_as_const(x), !wide, 1.0f));
    for (int i = 0; i < iterations; i++) {
        const quintic p = polynomial(method, i);
        const nd_view poly = free[0], t = free[1], next = free[2];
        ND_TRY(b->ops.gemm_symmetric(b, poly, nd_as_const(g), false, p.c));
        ND_TRY(b->ops.axpby(b, poly, p.b, nd_as_const(g), 1.0f));
        if (i + 1 < iterations) {
            ND_TRY(b->ops.gemm_symmetric(b, t, nd_as_const(poly), false, 1.0f));
            ND_TRY(b->ops.axpby(b, t, 2.0f * p.a, nd_as_const(poly), 1.0f));
            ND_TRY(b->ops.axpby(b, next, p.a * p.a, nd_as_const(g), 0.0f));
            ND_TRY(b->ops.gemm(b, next, nd_as_const(t), false, nd_as_const(g), false, 1.0f, 1.0f));
        }
        /* (alpha I + M)(aI + B); M is still empty in the first iteration. */
        ND_TRY(b->ops.axpby(b, g, (float)alpha, nd_as_const(poly), 0.0f));
        if (i > 0) {
            ND_TRY(b->ops.axpby(b, g, p.a, nd_as_const(m), 1.0f));
            ND_TRY(b->ops.gemm(b, g, nd_as_const(m), false, nd_as_const(poly), false, 1.0f, 1.0f));
        }
        alpha *= (double)p.a;
        free[2] = m;
        m = g;
        g = next;
    }
    if (m.data != square[0].data &&
        m.data != square[1].data) { /* the result takes the others' place */
        ND_TRY(b->ops.axpby(b, square[0], 1.0f, nd_as_const(m), 0.0f));
        m = square[0];
    }
    *o = s->x[1];
    ND_TRY(b->ops.axpby(b, *o, (float)alpha, nd_as_const(x), 0.0f));
    if (wide)
        return b->ops.gemm(b, *o, nd_as_const(m), false, nd_as_const(x), false, 1.0f, 1.0f);
    return b->ops.gemm(b, *o, nd_as_const(x), false, nd_as_const(m), false, 1.0f, 1.0f);
}

nd_status nd_muon_orthogonalize(nd_backend *b, nd_orthogonalization method, int iterations,
                                const nd_muon_scratch *s, nd_view *o)
{
    const double margin = method == ND_ORTHOGONALIZATION_POLAR_EXPRESS ? polar_express_margin : 1.0;
    const int64_t rows = s->update.rows, cols = s->update.cols;
    ND_TRY(b->ops.sum_squares(b, s->norm, nd_as_const(s->update)));
    ND_TRY(b->ops.divide_by_norm(b, s->x[0], nd_as_const(s->update), nd_as_const(s->norm), margin));
    if (s->x[0].dtype == ND_F32 && (rows >= GRAM_RATIO * cols || cols >= GRAM_RATIO * rows))
        return iterate_gram(b, method, iterations, s, o);
    int at = 0;
    for (int i = 0; i < iterations; i++, at ^= 1)
        ND_TRY(iterate(b, polynomial(method, i), s->x[at], s->x[at ^ 1], s->gram));
    *o = s->x[at];
    return ND_OK;
}

nd_muon_scratch nd_muon_scratch_shaped(const nd_muon_scratch *s, int64_t rows, int64_t cols)
{
    nd_muon_scratch out = *s;
    out.update = nd_view_of(s->update.data, s->update.dtype, rows, cols);
    for (int i = 0; i < 2; i++)
        out.x[i] = nd_view_of(s->x[i].data, s->x[i].dtype, rows, cols);
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

float nd_muon_scale(int64_t rows, int64_t cols)
{
    return 0.2f * sqrtf((float)(rows > cols ? rows : cols));
}

nd_status nd_muon_update(nd_backend *b, nd_view w, const nd_state *state, nd_cview g,
                         const nd_muon_params *p, const nd_muon_scratch *scratch)
{
    nd_view o;
    ND_TRY(nd_muon_direction(b, state, g, p, scratch, &o));
    const nd_update_params update = {
        .step_size = p->learning_rate * nd_muon_scale(w.rows, w.cols),
        .decay = p->learning_rate * p->weight_decay,
        .cautious_decay = p->cautious_decay,
        .rounding_key = p->rounding_key,
    };
    return b->ops.apply_update(b, w, nd_as_const(o), &update);
}

double nd_muon_flops(int64_t rows, int64_t cols, int iterations)
{
    const double m = (double)(rows < cols ? rows : cols), n = (double)(rows < cols ? cols : rows);
    return iterations * (4.0 * m * m * n + 2.0 * m * m * m);
}
