/* Fast layer: the gated activation, alone and fused with the sub-norm that follows it. */
#include "core/backend/cpu/fast_rows.h"
#include "core/backend/cpu/op_families.h"

#include <string.h>

static nd_status swiglu_fast(nd_backend *b, nd_view h, nd_cview gate, nd_cview up)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    if (!nd_fast_covers(h.dtype) || !nd_fast_covers(gate.dtype) || !nd_fast_covers(up.dtype))
        return fast->reference.swiglu(b, h, gate, up);
    ND_REQUIRE(nd_same_shape(nd_as_const(h), gate) && nd_same_shape(gate, up));
    const nd_fast_kernels *k = fast->kernels;
    const int64_t n = gate.cols;
    ND_TRY(nd_fast_grow_private(fast, 2 * nd_fast_bytes(n, sizeof(float))));
#pragma omp parallel for num_threads(nd_fast_team(fast, gate.rows *n))
    for (int64_t t = 0; t < gate.rows; t++) {
        float *first = nd_fast_buffer(fast, nd_fast_thread(), 0, n);
        const float *g = nd_fast_load(k, gate, t * n, n, first);
        const float *u =
            nd_fast_load(k, up, t * n, n, nd_fast_buffer(fast, nd_fast_thread(), 1, n));
        float *target = nd_fast_target(h, t * n, first);
        k->swiglu(target, g, u, n);
        nd_fast_store(k, h, t * n, n, target);
    }
    return ND_OK;
}

static nd_status swiglu_rmsnorm_quantize_fast(nd_backend *b, nd_view q, nd_view a, nd_view r,
                                              nd_cview gate, nd_cview up, nd_cview w)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    if (!nd_fast_covers(gate.dtype) || !nd_fast_covers(up.dtype) || !nd_fast_covers(w.dtype) ||
        r.dtype != ND_F32)
        return fast->reference.swiglu_rmsnorm_quantize(b, q, a, r, gate, up, w);
    ND_REQUIRE(q.dtype == ND_I8 && nd_same_shape(nd_as_const(q), gate) && nd_same_shape(gate, up));
    ND_REQUIRE(w.rows == 1 && w.cols == gate.cols && r.rows == gate.rows && r.cols == 1);
    ND_REQUIRE(a.dtype == ND_F32 && a.rows == gate.rows && a.cols == 1);
    const nd_fast_kernels *k = fast->kernels;
    const int64_t n = gate.cols;
    nd_fast_weights weights;
    ND_TRY(nd_fast_load_weights(fast, w, 0, &weights));
    ND_TRY(nd_fast_grow_private(fast, 2 * nd_fast_bytes(n, sizeof(float))));
#pragma omp parallel for num_threads(nd_fast_team(fast, gate.rows *n))
    for (int64_t t = 0; t < gate.rows; t++) {
        float *hidden = nd_fast_buffer(fast, nd_fast_thread(), 0, n);
        const float *g = nd_fast_load(k, gate, t * n, n, hidden);
        const float *u =
            nd_fast_load(k, up, t * n, n, nd_fast_buffer(fast, nd_fast_thread(), 1, n));
        k->swiglu(hidden, g, u, n);
        const float scale = nd_fast_norm_scale(k, hidden, n);
        ((float *)r.data)[t] = scale;
        k->norm(hidden, hidden, weights.w, scale, n);
        nd_fast_quantize_row(k, (int8_t *)q.data + t * n, (float *)a.data + t, hidden, n);
    }
    return ND_OK;
}

/* One row of gate and up, and what comes of them: a thread's buffers, but for what is f32. */
typedef struct gated_row {
    const float *gate, *up;
    float *hidden, *sigmoid;
} gated_row;

enum { GATED_BUFFERS = 4 };

static gated_row load_gated_row(const nd_cpu_fast *fast, nd_cview gate, nd_cview up, int64_t t)
{
    const nd_fast_kernels *k = fast->kernels;
    const int64_t n = gate.cols;
    const int thread = nd_fast_thread();
    const gated_row row = {nd_fast_load(k, gate, t * n, n, nd_fast_buffer(fast, thread, 0, n)),
                           nd_fast_load(k, up, t * n, n, nd_fast_buffer(fast, thread, 1, n)),
                           nd_fast_buffer(fast, thread, 2, n), nd_fast_buffer(fast, thread, 3, n)};
    k->swiglu_and_sigmoid(row.hidden, row.sigmoid, row.gate, row.up, n);
    return row;
}

/* Stores dgate and dup of one row, which may lie over gate and up, by way of the buffers of those:
 * more buffers would not fit the first-level cache. */
static void gate_row_backward(const nd_cpu_fast *fast, nd_view dgate, nd_view dup, const float *dh,
                              const gated_row *row, int64_t t)
{
    const nd_fast_kernels *k = fast->kernels;
    const int64_t n = dgate.cols;
    const int thread = nd_fast_thread();
    float *dg = nd_fast_target(dgate, t * n, nd_fast_buffer(fast, thread, 0, n));
    float *du = nd_fast_target(dup, t * n, nd_fast_buffer(fast, thread, 1, n));
    k->swiglu_backward(dg, du, dh, row->gate, row->up, row->sigmoid, n);
    nd_fast_store(k, dgate, t * n, n, dg);
    nd_fast_store(k, dup, t * n, n, du);
}

static nd_status swiglu_backward_fast(nd_backend *b, nd_view dgate, nd_view dup, nd_cview dh,
                                      nd_cview gate, nd_cview up)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    if (!nd_fast_covers(dgate.dtype) || !nd_fast_covers(dup.dtype) || !nd_fast_covers(dh.dtype) ||
        !nd_fast_covers(gate.dtype) || !nd_fast_covers(up.dtype))
        return fast->reference.swiglu_backward(b, dgate, dup, dh, gate, up);
    ND_REQUIRE(nd_same_shape(dh, gate) && nd_same_shape(gate, up));
    ND_REQUIRE(nd_same_shape(nd_as_const(dgate), gate) && nd_same_shape(nd_as_const(dup), gate));
    const nd_fast_kernels *k = fast->kernels;
    const int64_t n = gate.cols;
    ND_TRY(nd_fast_grow_private(fast, (GATED_BUFFERS + 1) * nd_fast_bytes(n, sizeof(float))));
#pragma omp parallel for num_threads(nd_fast_team(fast, gate.rows *n))
    for (int64_t t = 0; t < gate.rows; t++) {
        float *buffer = nd_fast_buffer(fast, nd_fast_thread(), GATED_BUFFERS, n);
        const gated_row row = load_gated_row(fast, gate, up, t);
        gate_row_backward(fast, dgate, dup, nd_fast_load(k, dh, t * n, n, buffer), &row, t);
    }
    return ND_OK;
}

typedef struct fused_backward {
    nd_view dgate, dup, q, a;
    nd_cview dy, gate, up;
    const float *w;
    float *r;
} fused_backward;

/* The codes and norm of a row's activation, as the forward pass had them. */
static void quantize_again(const nd_cpu_fast *fast, const fused_backward *f, int64_t t,
                           const float *hidden, float *buffer)
{
    const int64_t n = f->gate.cols;
    f->r[t] = nd_fast_norm_scale(fast->kernels, hidden, n);
    fast->kernels->norm(buffer, hidden, f->w, f->r[t], n);
    nd_fast_quantize_row(fast->kernels, (int8_t *)f->q.data + t * n, (float *)f->a.data + t, buffer,
                         n);
}

static void fused_row_backward(const nd_cpu_fast *fast, const fused_backward *f, int64_t t,
                               float *dw)
{
    const nd_fast_kernels *k = fast->kernels;
    const int64_t n = f->gate.cols;
    float *buffer = nd_fast_buffer(fast, nd_fast_thread(), GATED_BUFFERS, n);
    const gated_row row = load_gated_row(fast, f->gate, f->up, t);
    if (f->q.data)
        quantize_again(fast, f, t, row.hidden, buffer);
    const float *dy = nd_fast_load(k, f->dy, t * n, n, buffer);
    const float r = f->r[t];
    float *hidden = row.hidden; /* then its gradient */
    const double mean = k->dot3(dy, f->w, hidden, n) / (double)n;
    k->multiply_add(dw, dy, hidden, r, n);
    k->norm_backward(hidden, dy, hidden, f->w, r, (float)((double)r * (double)r * (double)r * mean),
                     n);
    gate_row_backward(fast, f->dgate, f->dup, hidden, &row, t);
}

static nd_status swiglu_rmsnorm_backward_fast(nd_backend *b, nd_view dgate, nd_view dup, nd_view dw,
                                              nd_view q, nd_view a, nd_view r, nd_cview dy,
                                              nd_cview gate, nd_cview up, nd_cview w)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    if (!nd_fast_covers(dgate.dtype) || !nd_fast_covers(dup.dtype) || !nd_fast_covers(dy.dtype) ||
        !nd_fast_covers(gate.dtype) || !nd_fast_covers(up.dtype) || !nd_fast_covers(w.dtype) ||
        r.dtype != ND_F32)
        return fast->reference.swiglu_rmsnorm_backward(b, dgate, dup, dw, q, a, r, dy, gate, up, w);
    ND_REQUIRE(nd_same_shape(dy, gate) && nd_same_shape(gate, up) && r.rows == gate.rows);
    ND_REQUIRE(nd_same_shape(nd_as_const(dgate), gate) && nd_same_shape(nd_as_const(dup), gate));
    ND_REQUIRE((dw.dtype == ND_F32 || dw.dtype == ND_F64) && dw.cols == gate.cols);
    ND_REQUIRE(w.rows == 1 && w.cols == gate.cols);
    ND_REQUIRE(!q.data || (q.dtype == ND_I8 && nd_same_shape(nd_as_const(q), gate) &&
                           a.dtype == ND_F32 && a.rows == gate.rows));
    const int64_t n = gate.cols, rows = nd_fast_block_rows(gate.rows);
    const int64_t blocks = nd_fast_ceil(gate.rows, rows);
    nd_fast_weights weights;
    ND_TRY(nd_fast_load_weights(fast, w, nd_fast_bytes(blocks * n, sizeof(float)), &weights));
    ND_TRY(nd_fast_grow_private(fast, (GATED_BUFFERS + 1) * nd_fast_bytes(n, sizeof(float))));
    const fused_backward call = {dgate, dup, q, a, dy, gate, up, weights.w, r.data};
    float *partial = weights.extra;
#pragma omp parallel for num_threads(nd_fast_team(fast, gate.rows *n)) schedule(dynamic, 1)
    for (int64_t block = 0; block < blocks; block++) {
        float *sums = partial + block * n;
        memset(sums, 0, (size_t)n * sizeof *sums);
        for (int64_t t = block * rows; t < nd_fast_min((block + 1) * rows, gate.rows); t++)
            fused_row_backward(fast, &call, t, sums);
    }
    nd_fast_add_blocks(fast, dw, partial, blocks);
    return ND_OK;
}

void nd_fast_fill_swiglu(nd_backend_ops *ops)
{
    ops->swiglu = swiglu_fast;
    ops->swiglu_rmsnorm_quantize = swiglu_rmsnorm_quantize_fast;
    ops->swiglu_backward = swiglu_backward_fast;
    ops->swiglu_rmsnorm_backward = swiglu_rmsnorm_backward_fast;
}
