/* Fast layer: RMSNorm, alone and fused with quantization. */
#include "core/backend/cpu/fast_rows.h"
#include "core/backend/cpu/op_families.h"

#include <string.h>

nd_status nd_fast_load_weights(nd_cpu_fast *fast, nd_cview w, size_t extra,
                               nd_fast_weights *weights)
{
    const size_t bytes = nd_fast_bytes(w.cols, sizeof(float));
    ND_TRY(nd_fast_grow(&fast->shared, bytes + extra));
    weights->w = nd_fast_load(fast->kernels, w, 0, w.cols, fast->shared.memory);
    weights->extra = (char *)fast->shared.memory + bytes;
    return ND_OK;
}

void nd_fast_add_blocks(const nd_cpu_fast *fast, nd_view dw, const float *partial, int64_t blocks)
{
    const int64_t n = dw.cols;
#pragma omp parallel for num_threads(nd_fast_team(fast, n *blocks))
    for (int64_t first = 0; first < n; first += 256) {
        const int64_t count = nd_fast_min(256, n - first);
        double sum[256] = {0.0};
        for (int64_t block = 0; block < blocks; block++)
            for (int64_t i = 0; i < count; i++)
                sum[i] += (double)partial[block * n + first + i];
        for (int64_t i = 0; i < count; i++)
            nd_store(dw, first + i, nd_load(nd_as_const(dw), first + i) + sum[i]);
    }
}

/* y = the normalized rows; with `a`, their int8 codes and scales. */
static nd_status normalize(nd_cpu_fast *fast, nd_view y, const nd_view *a, nd_view r, nd_cview x,
                           nd_cview w)
{
    const nd_fast_kernels *k = fast->kernels;
    const int64_t n = x.cols;
    nd_fast_weights weights;
    ND_TRY(nd_fast_load_weights(fast, w, 0, &weights));
    ND_TRY(nd_fast_grow_private(fast, nd_fast_bytes(n, sizeof(float))));
#pragma omp parallel for num_threads(nd_fast_team(fast, x.rows *n))
    for (int64_t t = 0; t < x.rows; t++) {
        float *buffer = nd_fast_buffer(fast, nd_fast_thread(), 0, n);
        const float *row = nd_fast_load(k, x, t * n, n, buffer);
        const float scale = nd_fast_norm_scale(k, row, n);
        float *target = a ? buffer : nd_fast_target(y, t * n, buffer);
        ((float *)r.data)[t] = scale;
        k->norm(target, row, weights.w, scale, n);
        if (a)
            nd_fast_quantize_row(k, (int8_t *)y.data + t * n, (float *)a->data + t, target, n);
        else
            nd_fast_store(k, y, t * n, n, target);
    }
    return ND_OK;
}

static nd_status rmsnorm_fast(nd_backend *b, nd_view y, nd_view r, nd_cview x, nd_cview w)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    if (!nd_fast_covers(y.dtype) || !nd_fast_covers(x.dtype) || !nd_fast_covers(w.dtype) ||
        r.dtype != ND_F32)
        return fast->reference.rmsnorm(b, y, r, x, w);
    ND_REQUIRE(nd_same_shape(nd_as_const(y), x) && w.rows == 1 && w.cols == x.cols);
    ND_REQUIRE(r.rows == x.rows && r.cols == 1);
    return normalize(fast, y, NULL, r, x, w);
}

static nd_status rmsnorm_quantize_fast(nd_backend *b, nd_view q, nd_view a, nd_view r, nd_cview x,
                                       nd_cview w)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    if (!nd_fast_covers(x.dtype) || !nd_fast_covers(w.dtype) || r.dtype != ND_F32)
        return fast->reference.rmsnorm_quantize(b, q, a, r, x, w);
    ND_REQUIRE(q.dtype == ND_I8 && nd_same_shape(nd_as_const(q), x) && w.rows == 1);
    ND_REQUIRE(w.cols == x.cols && r.rows == x.rows && r.cols == 1);
    ND_REQUIRE(a.dtype == ND_F32 && a.rows == x.rows && a.cols == 1);
    return normalize(fast, q, &a, r, x, w);
}

/* One row's dx, and its share of dw. */
static void norm_row_backward(const nd_cpu_fast *fast, nd_view dx, nd_cview dy, nd_cview x,
                              const float *w, float r, float beta, int64_t t, float *dw)
{
    const nd_fast_kernels *k = fast->kernels;
    const int64_t n = x.cols;
    const int thread = nd_fast_thread();
    const float *in = nd_fast_load(k, x, t * n, n, nd_fast_buffer(fast, thread, 0, n));
    const float *grad = nd_fast_load(k, dy, t * n, n, nd_fast_buffer(fast, thread, 1, n));
    const double mean = k->dot3(grad, w, in, n) / (double)n;
    const float projection = (float)((double)r * (double)r * (double)r * mean);
    float *out = nd_fast_target(dx, t * n, nd_fast_buffer(fast, thread, 2, n));
    k->multiply_add(dw, grad, in, r, n);
    if (beta == 0.0f) {
        k->norm_backward(out, grad, in, w, r, projection, n);
    } else {
        float *fresh = nd_fast_buffer(fast, thread, 3, n);
        k->norm_backward(fresh, grad, in, w, r, projection, n);
        nd_fast_load(k, nd_as_const(dx), t * n, n, out);
        k->axpby(out, 1.0f, fresh, beta, n);
    }
    nd_fast_store(k, dx, t * n, n, out);
}

static nd_status rmsnorm_backward_fast(nd_backend *b, nd_view dx, nd_view dw, nd_cview dy,
                                       nd_cview x, nd_cview w, nd_cview r, float beta)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    if (!nd_fast_covers(dx.dtype) || !nd_fast_covers(dy.dtype) || !nd_fast_covers(x.dtype) ||
        !nd_fast_covers(w.dtype) || r.dtype != ND_F32)
        return fast->reference.rmsnorm_backward(b, dx, dw, dy, x, w, r, beta);
    ND_REQUIRE(nd_same_shape(nd_as_const(dx), x) && nd_same_shape(dy, x) && w.cols == x.cols);
    ND_REQUIRE((dw.dtype == ND_F32 || dw.dtype == ND_F64) && dw.cols == x.cols);
    ND_REQUIRE(r.rows == x.rows && r.cols == 1);
    const int64_t n = x.cols, rows = nd_fast_block_rows(x.rows);
    const int64_t blocks = nd_fast_ceil(x.rows, rows);
    nd_fast_weights weights;
    const size_t partial_bytes = nd_fast_bytes(blocks * n, sizeof(float));
    ND_TRY(nd_fast_load_weights(fast, w, partial_bytes, &weights));
    ND_TRY(nd_fast_grow_private(fast, 4 * nd_fast_bytes(n, sizeof(float))));
    float *partial = weights.extra;
#pragma omp parallel for num_threads(nd_fast_team(fast, x.rows *n)) schedule(dynamic, 1)
    for (int64_t block = 0; block < blocks; block++) {
        float *sums = partial + block * n;
        memset(sums, 0, (size_t)n * sizeof *sums);
        for (int64_t t = block * rows; t < nd_fast_min((block + 1) * rows, x.rows); t++)
            norm_row_backward(fast, dx, dy, x, weights.w, ((const float *)r.data)[t], beta, t,
                              sums);
    }
    nd_fast_add_blocks(fast, dw, partial, blocks);
    return ND_OK;
}

void nd_fast_fill_norms(nd_backend_ops *ops)
{
    ops->rmsnorm = rmsnorm_fast;
    ops->rmsnorm_quantize = rmsnorm_quantize_fast;
    ops->rmsnorm_backward = rmsnorm_backward_fast;
}
