/* Fast layer: embedding and softmax cross-entropy. */
#include "core/backend/cpu/fast_rows.h"
#include "core/backend/cpu/op_families.h"

#include <string.h>

static nd_status embedding_fast(nd_backend *b, nd_view x, nd_cview table, nd_cview tokens)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    if (!nd_fast_covers(x.dtype) || !nd_fast_covers(table.dtype))
        return fast->reference.embedding(b, x, table, tokens);
    ND_REQUIRE(x.cols == table.cols);
    ND_TRY(nd_check_tokens(tokens, x.rows, table.rows, 0));
    const nd_fast_kernels *k = fast->kernels;
    const int64_t n = x.cols;
    const int32_t *ids = tokens.data;
    ND_TRY(nd_fast_grow_private(fast, nd_fast_bytes(n, sizeof(float))));
#pragma omp parallel for num_threads(nd_fast_team(fast, x.rows *n))
    for (int64_t t = 0; t < x.rows; t++) {
        float *buffer = fast->private[nd_fast_thread()].memory;
        const float *row = nd_fast_load(k, table, ids[t] * n, n, buffer);
        if (x.dtype == ND_F32)
            memcpy((float *)x.data + t * n, row, (size_t)n * sizeof *row);
        else
            nd_fast_store(k, x, t * n, n, row);
    }
    return ND_OK;
}

/* Threads own slices of columns, so that each row of the table adds its tokens in order. */
static nd_status embedding_backward_fast(nd_backend *b, nd_view dtable, nd_cview dx,
                                         nd_cview tokens)
{
    enum { SLICE = 64 };
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    if (dtable.dtype != ND_F32 || !nd_fast_covers(dx.dtype))
        return fast->reference.embedding_backward(b, dtable, dx, tokens);
    ND_REQUIRE(dx.cols == dtable.cols);
    ND_TRY(nd_check_tokens(tokens, dx.rows, dtable.rows, 0));
    const nd_fast_kernels *k = fast->kernels;
    const int64_t n = dx.cols;
    const int32_t *ids = tokens.data;
#pragma omp parallel for num_threads(nd_fast_team(fast, dx.rows *n)) schedule(dynamic, 1)
    for (int64_t first = 0; first < n; first += SLICE) {
        const int64_t count = nd_fast_min(SLICE, n - first);
        float buffer[SLICE];
        for (int64_t t = 0; t < dx.rows; t++) {
            float *row = (float *)dtable.data + ids[t] * n + first;
            k->add(row, row, nd_fast_load(k, dx, t * n + first, count, buffer), count);
        }
    }
    return ND_OK;
}

/* ||p - onehot|| from sum p^2 and the target's p. */
static double error_norm(double squares, double target)
{
    const double others = squares - target * target;
    return sqrt((others > 0.0 ? others : 0.0) + (1.0 - target) * (1.0 - target));
}

typedef struct row_loss {
    double nll, total, norm;
} row_loss;

/* One f32 row of logits, its gradient multiplied by `scale`; formulas as in the reference. With e_i
 * = exp(z_i - max) and S their sum: p = e/S, H = log S - sum_i e_i (z_i - max) / S.
 * `e`: scratch. */
static row_loss cross_entropy_row(const nd_fast_kernels *k, float *logits, int64_t vocab,
                                  const int32_t *targets, const nd_cross_entropy_params *p,
                                  double scale, float *e)
{
    const double count = (double)vocab, smooth = (double)p->label_smoothing;
    const double z = (double)p->z_loss_weight, w = (double)p->entropy_weight;
    row_loss out = {0.0, 0.0, 0.0};
    const float largest = k->max(logits, vocab);
    double sum, tilt, weights = 0.0, targeted = 0.0;
    k->softmax_moments(e, logits, largest, &sum, &tilt, vocab);
    const double lse = (double)largest + log(sum), entropy = log(sum) - tilt / sum;
    const double mean = smooth > 0.0 ? k->sum(logits, vocab) / count - lse : 0.0;
    for (int j = 0; j < nd_cross_entropy_offsets(p); j++) {
        if (targets[j] < 0)
            continue;
        const double weight = j == 0 ? 1.0 : (double)p->offset_weight[j];
        weights += weight;
        targeted += weight * (lse - (double)logits[targets[j]]);
    }
    out.nll = lse - (double)logits[targets[0]];
    out.total = (1.0 - smooth) * targeted - smooth * weights * mean + z * lse * lse - w * entropy;
    if (p->norm.data)
        out.norm = error_norm(k->sum_squares(e, vocab) / (sum * sum), (double)e[targets[0]] / sum);
    if (p->gradient_scale == 0.0f)
        return out;
    const nd_softmax_gradient gradient = {
        .lse = (float)lse,
        .base = (float)(scale / sum * (weights + 2.0 * z * lse + w * entropy)),
        .slope = (float)(scale / sum * w),
        .floor = (float)(scale * smooth * weights / count)};
    k->softmax_gradient(logits, e, &gradient, vocab);
    for (int j = 0; j < nd_cross_entropy_offsets(p); j++)
        if (targets[j] >= 0)
            logits[targets[j]] -=
                (float)scale * (1.0f - p->label_smoothing) * (j == 0 ? 1.0f : p->offset_weight[j]);
    return out;
}

static nd_status cross_entropy_fast(nd_backend *b, nd_view nll, nd_view total, nd_view logits,
                                    nd_cview targets, const nd_cross_entropy_params *p)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    const bool apart = p->gradient.data && p->gradient_scale != 0.0f;
    const nd_view out = apart ? p->gradient : logits;
    if (!nd_fast_covers(logits.dtype) || !nd_fast_covers(out.dtype))
        return fast->reference.cross_entropy(b, nll, total, logits, targets, p);
    ND_TRY(nd_cross_entropy_check(nll, total, logits, out, targets, p));
    const int offsets = nd_cross_entropy_offsets(p);
    const nd_fast_kernels *k = fast->kernels;
    const int64_t vocab = logits.cols;
    const int32_t *ids = targets.data;
    ND_TRY(nd_fast_grow_private(fast, 2 * nd_fast_bytes(vocab, sizeof(float))));
#pragma omp parallel for num_threads(nd_fast_team(fast, nd_view_count(nd_as_const(logits))))
    for (int64_t t = 0; t < logits.rows; t++) {
        const int thread = nd_fast_thread();
        float *row = nd_fast_target(out, t * vocab, nd_fast_buffer(fast, thread, 0, vocab));
        row_loss loss = {0.0, 0.0, 0.0};
        const double weight = p->weight.data ? nd_load(p->weight, t) : 1.0;
        if (ids[t * offsets] >= 0) {
            const float *z = nd_fast_load(k, nd_as_const(logits), t * vocab, vocab, row);
            if (z != row)
                memcpy(row, z, (size_t)vocab * sizeof *row);
            loss = cross_entropy_row(k, row, vocab, ids + t * offsets, p,
                                     (double)p->gradient_scale * weight,
                                     nd_fast_buffer(fast, thread, 1, vocab));
        } else if (p->gradient_scale != 0.0f) {
            memset(row, 0, (size_t)vocab * sizeof *row);
        }
        if (p->gradient_scale != 0.0f)
            nd_fast_store(k, out, t * vocab, vocab, row);
        nd_store(nll, t, loss.nll);
        nd_store(total, t, loss.total);
        if (p->norm.data)
            nd_store(p->norm, t, loss.norm);
    }
    return ND_OK;
}

void nd_fast_fill_loss(nd_backend_ops *ops)
{
    ops->embedding = embedding_fast;
    ops->embedding_backward = embedding_backward_fast;
    ops->cross_entropy = cross_entropy_fast;
}
