/* What the tests of GaLore share: matrices, and how much of one a subspace holds. */
#pragma once

#include "core/base/rng.h"
#include "optim/optimizer.h"
#include "support/support.h"

#include <lapacke.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t seed = 20261123;

/* Views taken from the backend one by one, with room to find subspaces in. */
typedef struct fixture {
    nd_backend *backend;
    void *memory[32];
    size_t bytes[32];
    int taken;
    nd_galore shape;
    nd_galore_scratch scratch;
} fixture;

static inline nd_view take(fixture *f, int64_t rows, int64_t cols)
{
    const size_t bytes = (size_t)(rows * cols) * sizeof(float);
    cr_assert_lt(f->taken, 32);
    ND_ASSERT_OK(f->backend->ops.allocate(f->backend, bytes, &f->memory[f->taken]));
    f->bytes[f->taken] = bytes;
    return nd_view_of(f->memory[f->taken++], ND_F32, rows, cols);
}

static inline fixture create(int64_t rows, int64_t cols, int64_t rank)
{
    fixture f = {.shape = nd_galore_create(rows, cols, rank)};
    const nd_cpu_backend_options options = {.threads = 2};
    const nd_galore *g = &f.shape;
    ND_ASSERT_OK(nd_cpu_backend_create(&options, &f.backend));
    f.scratch.basis = take(&f, rank, nd_galore_small(g));
    f.scratch.gram = take(&f, g->sketch, g->sketch);
    f.scratch.coefficients = take(&f, rank, g->sketch);
    f.scratch.host = calloc((size_t)nd_galore_host_doubles(g->sketch), sizeof *f.scratch.host);
    f.scratch.host_integers =
        calloc((size_t)nd_galore_host_integers(g->sketch), sizeof *f.scratch.host_integers);
    f.scratch.drawn = calloc(ND_GALORE_DRAWN, sizeof *f.scratch.drawn);
    return f;
}

static inline void destroy(fixture *f)
{
    for (int i = 0; i < f->taken; i++)
        f->backend->ops.release(f->backend, f->memory[i], f->bytes[i]);
    free(f->scratch.host);
    free(f->scratch.host_integers);
    free(f->scratch.drawn);
    nd_backend_destroy(f->backend);
}

static inline float at(nd_view v, int64_t row, int64_t col)
{
    return ((const float *)v.data)[row * v.cols + col];
}

static inline nd_view random_matrix(fixture *f, int64_t rows, int64_t cols, uint64_t key)
{
    const nd_view v = take(f, rows, cols);
    nd_rng_normal_fill(key, 0, 1.0f, v.data, rows * cols);
    return v;
}

/* Singular values that fall by half from one to the next, `rank` of them, on noise. */
static inline nd_view low_rank_with_noise(fixture *f, int64_t rank, float noise)
{
    const int64_t m = f->shape.rows, n = f->shape.cols;
    const nd_view g = random_matrix(f, m, n, seed + 1);
    const nd_view left = random_matrix(f, m, rank, seed + 2);
    const nd_view right = random_matrix(f, rank, n, seed + 3);
    float *values = g.data;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = noise * values[i * n + j];
            for (int64_t k = 0; k < rank; k++)
                sum += pow(0.5, (double)k) * (double)at(left, i, k) * (double)at(right, k, j);
            values[i * n + j] = (float)sum;
        }
    return g;
}

static inline void assert_orthonormal(nd_view p, double tolerance)
{
    for (int64_t i = 0; i < p.rows; i++)
        for (int64_t j = 0; j <= i; j++) {
            double dot = 0.0;
            for (int64_t k = 0; k < p.cols; k++)
                dot += (double)at(p, i, k) * (double)at(p, j, k);
            cr_assert_float_eq(dot, i == j ? 1.0 : 0.0, tolerance, "rows %d and %d: %g", (int)i,
                               (int)j, dot);
        }
}

/* A new subspace from a sketch of `gradient`. */
static inline nd_view find(fixture *f, nd_view gradient)
{
    const nd_galore *g = &f->shape;
    const nd_view omega = take(f, g->sketch, nd_galore_large(g));
    const nd_view y = take(f, g->sketch, nd_galore_small(g));
    const nd_view p = take(f, g->rank, nd_galore_small(g));
    ND_ASSERT_OK(nd_galore_random(f->backend, seed + 9, omega, f->scratch.drawn));
    ND_ASSERT_OK(
        nd_galore_sketch(f->backend, g, y, nd_as_const(omega), nd_as_const(gradient), 0.0f));
    ND_ASSERT_OK(nd_galore_subspace(f->backend, g, p, nd_as_const(y), seed, &f->scratch));
    return p;
}

/* sum of squares of the projection of `gradient`. */
static inline double captured(fixture *f, nd_view p, nd_view gradient)
{
    const nd_galore *g = &f->shape;
    const nd_view r = take(f, nd_galore_reduced_rows(g), nd_galore_reduced_cols(g));
    double sum = 0.0;
    ND_ASSERT_OK(nd_galore_project(f->backend, g, r, nd_as_const(p), nd_as_const(gradient), 0.0f));
    for (int64_t i = 0; i < r.rows * r.cols; i++)
        sum += pow((double)((const float *)r.data)[i], 2.0);
    return sum;
}

/* sum of the squares of the largest `rank` singular values. */
static inline double best(nd_view gradient, int64_t rank)
{
    const int64_t m = gradient.rows, n = gradient.cols, small = m < n ? m : n;
    double *a = malloc((size_t)(m * n) * sizeof *a), *s = malloc((size_t)small * sizeof *s);
    double none, sum = 0.0;
    for (int64_t i = 0; i < m * n; i++)
        a[i] = (double)((const float *)gradient.data)[i];
    cr_assert_eq(LAPACKE_dgesdd(LAPACK_ROW_MAJOR, 'N', (lapack_int)m, (lapack_int)n, a,
                                (lapack_int)n, s, &none, (lapack_int)m, &none, (lapack_int)n),
                 0);
    for (int64_t i = 0; i < rank; i++)
        sum += s[i] * s[i];
    free(a);
    free(s);
    return sum;
}
