/* GaLore: the gradient of a matrix in a subspace of its smaller side (arXiv:2403.03507), found from
 * a random sketch (GaLore 2, arXiv:2504.20437).
 *
 * G is [m, n]. P is [r, min(m, n)] with orthonormal rows: the papers' P, transposed, for either
 * side.
 *   m <= n: R = P G [r, n], and an update N of that shape represents Pᵀ N.
 *   m >  n: R = G Pᵀ [m, r], and N represents N P. */
#pragma once

#include "core/backend/backend.h"

/* Oversampling: rows of a sketch beyond the rank, which make its subspace nearly optimal. */
enum { ND_GALORE_OVERSAMPLING = 16 };

typedef struct nd_galore {
    int64_t rows, cols; /* m, n */
    int64_t rank;       /* r, less than both */
    int64_t sketch;     /* rows of a sketch: the rank plus oversampling */
} nd_galore;

nd_galore nd_galore_create(int64_t rows, int64_t cols, int64_t rank);

static inline bool nd_galore_left(const nd_galore *g)
{
    return g->rows <= g->cols;
}

/* The smaller side, which P projects, and the larger one. */
static inline int64_t nd_galore_small(const nd_galore *g)
{
    return nd_galore_left(g) ? g->rows : g->cols;
}

static inline int64_t nd_galore_large(const nd_galore *g)
{
    return nd_galore_left(g) ? g->cols : g->rows;
}

/* Shape of R. */
static inline int64_t nd_galore_reduced_rows(const nd_galore *g)
{
    return nd_galore_left(g) ? g->rank : g->rows;
}

static inline int64_t nd_galore_reduced_cols(const nd_galore *g)
{
    return nd_galore_left(g) ? g->cols : g->rank;
}

/* r = beta r + projection of `gradient` [m, n].   p: f32 [rank, small]; r: f32, R's shape. */
nd_status nd_galore_project(nd_backend *b, const nd_galore *g, nd_view r, nd_cview p,
                            nd_cview gradient, float beta);

/* u = alpha times the matrix [m, n] that n represents.   u, n: float; p: f32 [rank, small]. */
nd_status nd_galore_lift(nd_backend *b, const nd_galore *g, nd_view u, nd_cview p, nd_cview n,
                         float alpha);

/* y = beta y + the sketch of `gradient`: Omega Gᵀ, or Omega G when m > n.
 * y: f32 [sketch, small]; omega: f32 [sketch, large]. Linear in the gradient. */
nd_status nd_galore_sketch(nd_backend *b, const nd_galore *g, nd_view y, nd_cview omega,
                           nd_cview gradient, float beta);

/* Floats of the host buffer that random numbers pass through: many rows at a time, so that all
 * threads draw, but no more than a backend uploads without waiting. */
enum { ND_GALORE_DRAWN = 1 << 18 };

/* Fills x (f32) with normal(0, 1): element i from counter i of the key.
 * drawn: [ND_GALORE_DRAWN]. */
nd_status nd_galore_random(nd_backend *b, uint64_t key, nd_view x, float *drawn);

/* Working memory for finding a subspace, for sketches of at most `sketch` rows. */
typedef struct nd_galore_scratch {
    nd_view basis;        /* f32 [rank, small] */
    nd_view gram;         /* f32 [sketch, sketch] */
    nd_view coefficients; /* f32 [rank, sketch] */
    double *host;         /* nd_galore_host_doubles(sketch) */
    int *host_integers;   /* nd_galore_host_integers(sketch) */
    float *drawn;         /* [ND_GALORE_DRAWN] */
} nd_galore_scratch;

int64_t nd_galore_host_doubles(int64_t sketch);
int64_t nd_galore_host_integers(int64_t sketch);

/* p := orthonormal rows that span the sketch's `rank` largest left singular vectors (of Yᵀ).
 * Directions that the sketch lacks are filled from the random stream of `key`. y: f32 [sketch,
 * small], read only. */
nd_status nd_galore_subspace(nd_backend *b, const nd_galore *g, nd_view p, nd_cview y, uint64_t key,
                             const nd_galore_scratch *scratch);

/* p := random orthonormal rows. */
nd_status nd_galore_random_subspace(nd_backend *b, nd_view p, uint64_t key,
                                    const nd_galore_scratch *scratch);

/* c = next previousᵀ [rank, rank]: maps coordinates of the previous subspace to the next one's. */
nd_status nd_galore_rotation(nd_backend *b, nd_view c, nd_cview next, nd_cview previous);

/* out = c R, or R cᵀ when m > n. m (R) and out: f32 of R's shape. */
nd_status nd_galore_rotate(nd_backend *b, const nd_galore *g, nd_view out, nd_cview c, nd_cview m);
