#include "optim/galore.h"

#include "core/base/rng.h"
#include "optim/orthonormal.h"

#include <lapacke.h>
#include <math.h>

nd_galore nd_galore_create(int64_t rows, int64_t cols, int64_t rank)
{
    const int64_t small = rows < cols ? rows : cols;
    const int64_t sketch = rank + ND_GALORE_OVERSAMPLING;
    return (nd_galore){rows, cols, rank, sketch < small ? sketch : small};
}

nd_status nd_galore_project(nd_backend *b, const nd_galore *g, nd_view r, nd_cview p,
                            nd_cview gradient, float beta)
{
    if (nd_galore_left(g))
        return b->ops.gemm(b, r, p, false, gradient, false, 1.0f, beta);
    return b->ops.gemm(b, r, gradient, false, p, true, 1.0f, beta);
}

nd_status nd_galore_lift(nd_backend *b, const nd_galore *g, nd_view u, nd_cview p, nd_cview n,
                         float alpha)
{
    if (nd_galore_left(g))
        return b->ops.gemm(b, u, p, true, n, false, alpha, 0.0f);
    return b->ops.gemm(b, u, n, false, p, false, alpha, 0.0f);
}

nd_status nd_galore_sketch(nd_backend *b, const nd_galore *g, nd_view y, nd_cview omega,
                           nd_cview gradient, float beta)
{
    return b->ops.gemm(b, y, omega, false, gradient, nd_galore_left(g), 1.0f, beta);
}

nd_status nd_galore_random(nd_backend *b, uint64_t key, nd_view x, float *drawn)
{
    const int64_t count = nd_view_count(nd_as_const(x));
    float *values = x.data;
    for (int64_t first = 0; first < count; first += ND_GALORE_DRAWN) {
        const int64_t some = count - first < ND_GALORE_DRAWN ? count - first : ND_GALORE_DRAWN;
        nd_rng_normal_fill(key, (uint64_t)first, 1.0f, drawn, some);
        ND_TRY(b->ops.upload(b, values + first, drawn, (size_t)some * sizeof *drawn));
    }
    return ND_OK;
}

/* Memory for a matrix, its eigenvalues, and LAPACK's dsyevd to find them and the vectors. */
static int64_t work_doubles(int64_t n)
{
    return 1 + 6 * n + 2 * n * n;
}

int64_t nd_galore_host_doubles(int64_t sketch)
{
    return sketch * sketch + sketch + work_doubles(sketch);
}

int64_t nd_galore_host_integers(int64_t sketch)
{
    return 3 + 5 * sketch;
}

/* Threaded OpenBLAS would add threads to those of the backend, and results would depend on their
 * number. Absent from other LAPACKs. */
__attribute__((weak)) void openblas_set_num_threads(int threads);

/* a [n, n] := its eigenvectors in rows, w: eigenvalues, ascending. */
static nd_status eigenvectors(double *a, double *w, double *work, int *integers, int64_t n)
{
    if (openblas_set_num_threads)
        openblas_set_num_threads(1);
    const lapack_int side = (lapack_int)n;
    /* A symmetric matrix is the same in row- and column-major order; its vectors become rows. */
    const lapack_int failed = LAPACKE_dsyevd_work(LAPACK_COL_MAJOR, 'V', 'U', side, a, side, w,
                                                  work, (lapack_int)work_doubles(n), integers,
                                                  (lapack_int)nd_galore_host_integers(n));
    return ND_CHECK(failed == 0, ND_ENUMERIC, "dsyevd of a Gram matrix of %lld rows failed with %d",
                    (long long)n, (int)failed);
}

/* The scratch with views of this sketch's shape. */
static nd_galore_scratch shaped(const nd_galore_scratch *scratch, const nd_galore *g)
{
    nd_galore_scratch out = *scratch;
    out.basis = nd_view_shaped(scratch->basis, g->rank, nd_galore_small(g));
    out.gram = nd_view_shaped(scratch->gram, g->sketch, g->sketch);
    out.coefficients = nd_view_shaped(scratch->coefficients, g->rank, g->sketch);
    return out;
}

/* Twice, so that the second Gram matrix is nearly the identity and its factor accurate. */
static nd_status orthonormalize(nd_backend *b, nd_view p, const nd_galore_scratch *r)
{
    const nd_view gram = nd_view_shaped(r->gram, p.rows, p.rows);
    const nd_view basis = nd_view_shaped(r->basis, p.rows, p.cols);
    ND_TRY(nd_orthonormal_rows(b, basis, nd_as_const(p), gram, r->host, NULL));
    return nd_orthonormal_rows(b, p, nd_as_const(basis), gram, r->host, NULL);
}

nd_status nd_galore_random_subspace(nd_backend *b, nd_view p, uint64_t key,
                                    const nd_galore_scratch *scratch)
{
    ND_TRY(nd_galore_random(b, key, p, scratch->drawn));
    return orthonormalize(b, p, scratch);
}

/* Eigenvalues of YYᵀ below this fraction of the largest are rounding errors in f32. */
static const double negligible = 1e-6;

/* The coefficients of unit vectors Λ^(-1/2) V Y, largest first; returns their number. */
static int64_t leading(const double *vectors, const double *values, const nd_galore *g, float *out)
{
    const int64_t n = g->sketch;
    const double top = values[n - 1];
    int64_t count = 0;
    for (; count < g->rank; count++) {
        const int64_t from = n - 1 - count;
        if (!(values[from] > negligible * top))
            break;
        const double scale = 1.0 / sqrt(values[from]);
        for (int64_t j = 0; j < n; j++)
            out[count * n + j] = (float)(scale * vectors[from * n + j]);
    }
    return count;
}

nd_status nd_galore_subspace(nd_backend *b, const nd_galore *g, nd_view p, nd_cview y, uint64_t key,
                             const nd_galore_scratch *scratch)
{
    const nd_galore_scratch r = shaped(scratch, g);
    const int64_t n = g->sketch;
    double *a = r.host, *values = a + n * n, *work = values + n;
    float *transfer = (float *)work; /* not used at the same time */
    ND_TRY(b->ops.gemm(b, r.gram, y, false, y, true, 1.0f, 0.0f));
    ND_TRY(b->ops.download(b, transfer, r.gram.data, nd_view_bytes(nd_as_const(r.gram))));
    for (int64_t i = 0; i < n * n; i++)
        a[i] = (double)transfer[i];
    ND_TRY(eigenvectors(a, values, work, r.host_integers, n));
    const int64_t found = leading(a, values, g, transfer);
    if (found > 0) {
        const nd_view coefficients = nd_view_rows(r.coefficients, 0, found);
        ND_TRY(b->ops.upload(b, coefficients.data, transfer,
                             nd_view_bytes(nd_as_const(coefficients))));
        ND_TRY(b->ops.gemm(b, nd_view_rows(p, 0, found), nd_as_const(coefficients), false, y, false,
                           1.0f, 0.0f));
    }
    ND_TRY(nd_galore_random(b, key, nd_view_rows(p, found, g->rank - found), r.drawn));
    return orthonormalize(b, p, &r);
}

nd_status nd_galore_rotation(nd_backend *b, nd_view c, nd_cview next, nd_cview previous)
{
    return b->ops.gemm(b, c, next, false, previous, true, 1.0f, 0.0f);
}

nd_status nd_galore_rotate(nd_backend *b, const nd_galore *g, nd_view out, nd_cview c, nd_cview m)
{
    if (nd_galore_left(g))
        return b->ops.gemm(b, out, c, false, m, false, 1.0f, 0.0f);
    return b->ops.gemm(b, out, m, false, c, true, 1.0f, 0.0f);
}
