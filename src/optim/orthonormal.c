#include "optim/orthonormal.h"

#include <math.h>

static const double ridge = 1e-6;

/* a (unit diagonal, [n, n]) := its lower Cholesky factor. */
static void cholesky(double *a, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j <= i; j++) {
            double sum = a[i * n + j];
            for (int64_t k = 0; k < j; k++)
                sum -= a[i * n + k] * a[j * n + k];
            if (i == j)
                a[i * n + i] = sqrt(fmax(sum, ridge));
            else
                a[i * n + j] = sum / a[j * n + j];
        }
}

/* t := the inverse of the lower triangular l, computed along rows of t. */
static void invert_lower(double *t, const double *l, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        double *row = t + i * n;
        for (int64_t j = 0; j < n; j++)
            row[j] = i == j ? 1.0 : 0.0;
        for (int64_t k = 0; k < i; k++)
            for (int64_t j = 0; j <= k; j++)
                row[j] -= l[i * n + k] * t[k * n + j];
        for (int64_t j = 0; j <= i; j++)
            row[j] /= l[i * n + i];
    }
}

nd_status nd_orthonormal_rows(nd_backend *b, nd_view y, nd_cview x, nd_view gram, double *host,
                              double *largest)
{
    const int64_t n = x.rows;
    const size_t bytes = (size_t)(n * n) * sizeof(float);
    double *a = host, *t = host + n * n, norms[n];
    float *transfer = (float *)t; /* not used at the same time */
    ND_TRY(b->ops.gemm(b, gram, x, false, x, true, 1.0f, 0.0f));
    ND_TRY(b->ops.download(b, transfer, gram.data, bytes));
    double top = 0.0;
    for (int64_t i = 0; i < n; i++) {
        const double square = (double)transfer[i * n + i];
        top = square > top ? square : top;
        norms[i] = square > 0.0 ? 1.0 / sqrt(square) : 0.0;
    }
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++)
            a[i * n + j] = i == j ? 1.0 + ridge : norms[i] * norms[j] * (double)transfer[i * n + j];
    cholesky(a, n);
    invert_lower(t, a, n);
    float *scaled = (float *)a;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++)
            scaled[i * n + j] = (float)(t[i * n + j] * norms[j]);
    ND_TRY(b->ops.upload(b, gram.data, scaled, bytes));
    if (largest)
        *largest = top;
    return b->ops.gemm(b, y, nd_as_const(gram), false, x, false, 1.0f, 0.0f);
}
