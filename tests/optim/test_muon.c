/* Muon against singular values computed in double and against its own formulas. */
#include "core/base/rng.h"
#include "optim/muon.h"
#include "support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_MAX = 48, COLS_MAX = 48, SIZE_MAX_ = ROWS_MAX * COLS_MAX, COLS_LONG = 12 };

typedef struct muon_scratch {
    nd_backend *backend;
    float update[SIZE_MAX_], x[2][SIZE_MAX_], gram[2][SIZE_MAX_];
    double norm;
    nd_muon_scratch scratch;
} muon_scratch;

static muon_scratch *scratch_create(int64_t rows, int64_t cols, bool reference)
{
    muon_scratch *r = calloc(1, sizeof *r);
    const nd_cpu_backend_options options = {.threads = 1, .reference_only = reference};
    ND_ASSERT_OK(nd_cpu_backend_create(&options, &r->backend));
    const int64_t side = rows < cols ? rows : cols;
    r->scratch.update = nd_view_of(r->update, ND_F32, rows, cols);
    for (int i = 0; i < 2; i++) {
        r->scratch.x[i] = nd_view_of(r->x[i], ND_F32, rows, cols);
        r->scratch.gram[i] = nd_view_of(r->gram[i], ND_F32, side, side);
    }
    r->scratch.norm = nd_view_of(&r->norm, ND_F64, 1, 1);
    return r;
}

static void scratch_destroy(muon_scratch *r)
{
    nd_backend_destroy(r->backend);
    free(r);
}

/* Singular values by one-sided Jacobi rotations of the columns of a (or of its transpose). */
static void singular_values(const float *a, int64_t rows, int64_t cols, double *values)
{
    const int64_t n = rows < cols ? rows : cols, m = rows < cols ? cols : rows;
    double *u = malloc((size_t)(m * n) * sizeof *u);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++)
            u[i * n + j] = rows < cols ? (double)a[j * cols + i] : (double)a[i * cols + j];
    for (int sweep = 0; sweep < 30; sweep++)
        for (int64_t p = 0; p < n; p++)
            for (int64_t q = p + 1; q < n; q++) {
                double pp = 0, qq = 0, pq = 0;
                for (int64_t i = 0; i < m; i++) {
                    pp += u[i * n + p] * u[i * n + p];
                    qq += u[i * n + q] * u[i * n + q];
                    pq += u[i * n + p] * u[i * n + q];
                }
                if (fabs(pq) < 1e-15)
                    continue;
                const double zeta = (qq - pp) / (2.0 * pq);
                const double t = (zeta < 0 ? -1.0 : 1.0) / (fabs(zeta) + sqrt(1.0 + zeta * zeta));
                const double c = 1.0 / sqrt(1.0 + t * t), s = c * t;
                for (int64_t i = 0; i < m; i++) {
                    const double left = u[i * n + p], right = u[i * n + q];
                    u[i * n + p] = c * left - s * right;
                    u[i * n + q] = s * left + c * right;
                }
            }
    for (int64_t j = 0; j < n; j++) {
        values[j] = 0.0;
        for (int64_t i = 0; i < m; i++)
            values[j] += u[i * n + j] * u[i * n + j];
        values[j] = sqrt(values[j]);
    }
    free(u);
}

static void check_orthogonal(nd_orthogonalization method, int iterations, int64_t rows,
                             int64_t cols, double low, double high)
{
    muon_scratch *r = scratch_create(rows, cols, false);
    nd_rng_normal_fill(7, 0, 1.0f, r->update, rows * cols);
    nd_view o;
    ND_ASSERT_OK(nd_muon_orthogonalize(r->backend, method, iterations, &r->scratch, &o));
    double values[COLS_MAX];
    const int64_t count = rows < cols ? rows : cols;
    singular_values(o.data, rows, cols, values);
    for (int64_t i = 0; i < count; i++)
        cr_assert(values[i] > low && values[i] < high, "%lld x %lld: singular value %g",
                  (long long)rows, (long long)cols, values[i]);
    scratch_destroy(r);
}

Test(muon, newton_schulz_brings_singular_values_near_1_for_every_shape)
{
    check_orthogonal(ND_ORTHOGONALIZATION_NEWTON_SCHULZ, 5, 16, 48, 0.6, 1.3);
    check_orthogonal(ND_ORTHOGONALIZATION_NEWTON_SCHULZ, 5, 48, 16, 0.6, 1.3);
    check_orthogonal(ND_ORTHOGONALIZATION_NEWTON_SCHULZ, 7, 1, 9, 0.6, 1.3);
}

Test(muon, polar_express_comes_closer_to_1)
{
    check_orthogonal(ND_ORTHOGONALIZATION_POLAR_EXPRESS, 6, 16, 48, 0.9, 1.1);
    check_orthogonal(ND_ORTHOGONALIZATION_POLAR_EXPRESS, 6, 48, 16, 0.9, 1.1);
}

Test(muon, a_zero_gradient_moves_nothing_but_by_decay)
{
    muon_scratch *r = scratch_create(8, 12, false);
    float w[96], m[96] = {0}, g[96] = {0};
    for (int i = 0; i < 96; i++)
        w[i] = (float)(i - 40);
    const nd_muon_params p = {.momentum = 0.95f,
                              .nesterov = true,
                              .method = ND_ORTHOGONALIZATION_NEWTON_SCHULZ,
                              .iterations = 5,
                              .learning_rate = 0.1f,
                              .weight_decay = 0.5f,
                              .gradient_scale = 1.0f};
    const nd_state state = {&nd_state_fp32, 8, 12, {nd_view_of(m, ND_F32, 8, 12)}};
    ND_ASSERT_OK(nd_muon_update(r->backend, nd_view_of(w, ND_F32, 8, 12), &state,
                                nd_cview_of(g, ND_F32, 8, 12), &p, &r->scratch));
    for (int i = 0; i < 96; i++)
        cr_assert_float_eq(w[i], 0.95f * (float)(i - 40), 1e-4);
    scratch_destroy(r);
}

/* The update's root mean square is 0.2 for any shape, AdamW's usual size. */
Test(muon, the_update_has_the_root_mean_square_of_adamw)
{
    static const int64_t shapes[][2] = {{48, 16}, {16, 48}, {32, 32}};
    for (int s = 0; s < 3; s++) {
        const int64_t rows = shapes[s][0], cols = shapes[s][1];
        muon_scratch *r = scratch_create(rows, cols, false);
        float w[SIZE_MAX_] = {0}, m[SIZE_MAX_] = {0}, g[SIZE_MAX_];
        nd_rng_normal_fill(9, 0, 1e-3f, g, rows * cols);
        const nd_muon_params p = {.momentum = 0.95f,
                                  .method = ND_ORTHOGONALIZATION_POLAR_EXPRESS,
                                  .iterations = 6,
                                  .learning_rate = 1.0f,
                                  .gradient_scale = 1.0f};
        const nd_state state = {&nd_state_fp32, rows, cols, {nd_view_of(m, ND_F32, rows, cols)}};
        ND_ASSERT_OK(nd_muon_update(r->backend, nd_view_of(w, ND_F32, rows, cols), &state,
                                    nd_cview_of(g, ND_F32, rows, cols), &p, &r->scratch));
        double squares = 0.0;
        for (int64_t i = 0; i < rows * cols; i++)
            squares += (double)w[i] * (double)w[i];
        cr_assert_float_eq(sqrt(squares / (double)(rows * cols)), 0.2, 0.02);
        scratch_destroy(r);
    }
}

/* x (aI + b xᵀx + c (xᵀx)²), five times, in double. */
static void newton_schulz_in_double(double *x, int64_t m, int64_t n)
{
    static const double a = 3.4445, b = -4.7750, c = 2.0315;
    double gram[COLS_LONG * COLS_LONG], factor[COLS_LONG * COLS_LONG], row[COLS_LONG];
    for (int iteration = 0; iteration < 5; iteration++) {
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++) {
                gram[i * n + j] = 0.0;
                for (int64_t k = 0; k < m; k++)
                    gram[i * n + j] += x[k * n + i] * x[k * n + j];
            }
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++) {
                factor[i * n + j] = (i == j ? a : 0.0) + b * gram[i * n + j];
                for (int64_t k = 0; k < n; k++)
                    factor[i * n + j] += c * gram[i * n + k] * gram[k * n + j];
            }
        for (int64_t k = 0; k < m; k++) {
            for (int64_t j = 0; j < n; j++) {
                row[j] = 0.0;
                for (int64_t i = 0; i < n; i++)
                    row[j] += x[k * n + i] * factor[i * n + j];
            }
            memcpy(x + k * n, row, sizeof(double) * (size_t)n);
        }
    }
}

/* Iterated on their Gram matrix alone, where small singular values are squared. */
Test(muon, long_matrices_with_small_singular_values_agree_with_the_iteration_in_double)
{
    enum { N = COLS_LONG };
    for (int shape = 0; shape < 4; shape++) {
        const bool wide = shape & 1;
        const int64_t M = shape & 2 ? ROWS_MAX : 2 * N;
        muon_scratch *r = scratch_create(wide ? N : M, wide ? M : N, false);
        double x[SIZE_MAX_], norm = 0.0, error = 0.0;
        float g[SIZE_MAX_];
        nd_view o;
        nd_rng_normal_fill(13, 0, 1.0f, g, M * N);
        for (int64_t i = 0; i < M; i++)
            for (int64_t j = 0; j < N; j++) {
                x[i * N + j] = (double)g[i * N + j] * pow(10.0, -4.0 * (double)j / (N - 1));
                r->update[wide ? j * M + i : i * N + j] = (float)x[i * N + j];
                norm += x[i * N + j] * x[i * N + j];
            }
        for (int64_t i = 0; i < M * N; i++)
            x[i] /= sqrt(norm);
        newton_schulz_in_double(x, M, N);
        norm = 0.0;
        ND_ASSERT_OK(nd_muon_orthogonalize(r->backend, ND_ORTHOGONALIZATION_NEWTON_SCHULZ, 5,
                                           &r->scratch, &o));
        for (int64_t i = 0; i < M; i++)
            for (int64_t j = 0; j < N; j++) {
                const double found = ((float *)o.data)[wide ? j * M + i : i * N + j];
                error += (found - x[i * N + j]) * (found - x[i * N + j]);
                norm += x[i * N + j] * x[i * N + j];
            }
        cr_assert_lt(sqrt(error / norm), 5e-3); /* in bf16 it would be 4e-2 */
        scratch_destroy(r);
    }
}

/* The leading singular value ends near 1 and none above. `rank` 1: all others are rounding errors,
 * which an iteration multiplies by up to 8. */
static void check_bounded(nd_orthogonalization method, int iterations, bool wide, int64_t rank)
{
    enum { N = COLS_LONG, M = ROWS_MAX };
    muon_scratch *r = scratch_create(wide ? N : M, wide ? M : N, false);
    float g[2 * SIZE_MAX_];
    double values[N], largest = 0.0;
    nd_view o;
    nd_rng_normal_fill(17, 0, 1.0f, g, M * (N + 1));
    for (int64_t i = 0; i < M; i++)
        for (int64_t j = 0; j < N; j++)
            r->update[wide ? j * M + i : i * N + j] =
                rank == 1 ? g[i] * g[M + j]
                          : g[i * N + j] * (float)pow(10.0, -4.0 * (double)j / (N - 1));
    ND_ASSERT_OK(nd_muon_orthogonalize(r->backend, method, iterations, &r->scratch, &o));
    for (int64_t i = 0; i < M * N; i++)
        cr_assert(isfinite(((float *)o.data)[i]), "%d iterations: element %lld is %g", iterations,
                  (long long)i, (double)((float *)o.data)[i]);
    singular_values(o.data, o.rows, o.cols, values);
    for (int j = 0; j < N; j++)
        largest = fmax(largest, values[j]);
    cr_assert(largest > 0.6 && largest < 1.3, "%d iterations: %g", iterations, largest);
    scratch_destroy(r);
}

Test(muon, any_number_of_iterations_leaves_no_singular_value_above_1)
{
    for (int iterations = 5; iterations <= 20; iterations++)
        for (int k = 0; k < 8; k++)
            check_bounded(k & 1 ? ND_ORTHOGONALIZATION_POLAR_EXPRESS
                                : ND_ORTHOGONALIZATION_NEWTON_SCHULZ,
                          iterations, k & 2, k & 4 ? 1 : COLS_LONG);
}

Test(muon, fast_and_reference_backends_agree)
{
    muon_scratch *fast = scratch_create(24, 40, false), *reference = scratch_create(24, 40, true);
    nd_rng_normal_fill(11, 0, 1.0f, fast->update, 24 * 40);
    memcpy(reference->update, fast->update, sizeof fast->update);
    nd_view a, b;
    ND_ASSERT_OK(nd_muon_orthogonalize(fast->backend, ND_ORTHOGONALIZATION_NEWTON_SCHULZ, 5,
                                       &fast->scratch, &a));
    ND_ASSERT_OK(nd_muon_orthogonalize(reference->backend, ND_ORTHOGONALIZATION_NEWTON_SCHULZ, 5,
                                       &reference->scratch, &b));
    for (int i = 0; i < 24 * 40; i++)
        cr_assert_float_eq(((float *)a.data)[i], ((float *)b.data)[i], 1e-4);
    scratch_destroy(fast);
    scratch_destroy(reference);
}
