/* Embedding, its gradient without atomics, and softmax cross-entropy with its gradient. */
#include "floats.cuh"

#include <limits.h>

/* Records the first token outside [lowest, vocab) for the next synchronization to report. */
__global__ void check_tokens_kernel(nd_cuda_fault *fault, const int32_t *ids, int64_t count,
                                    int64_t vocab, int32_t lowest)
{
    __shared__ int64_t first[256];
    int64_t found = INT64_MAX;
    for (int64_t t = threadIdx.x; t < count && found == INT64_MAX; t += blockDim.x)
        if (ids[t] < lowest || ids[t] >= vocab)
            found = t;
    first[threadIdx.x] = found;
    __syncthreads();
    if (threadIdx.x > 0)
        return;
    for (int i = 1; i < (int)blockDim.x; i++)
        found = first[i] < found ? first[i] : found;
    if (found == INT64_MAX || fault->kind != ND_FAULT_NONE)
        return;
    fault->value = ids[found];
    fault->position = found;
    fault->limit = vocab;
    fault->lowest = lowest;
    fault->kind = ND_FAULT_TOKEN;
}

static nd_status check_tokens(nd_cuda *cuda, nd_cview tokens, int64_t rows, int64_t vocab,
                              int32_t lowest)
{
    ND_REQUIRE(tokens.dtype == ND_I32 && nd_view_count(tokens) == rows);
    return ND_CUDA(ND_LAUNCH(check_tokens_kernel, dim3(1), dim3(256), 0, cuda->stream, cuda->fault,
                             static_cast<const int32_t *>(tokens.data), rows, vocab, lowest));
}

__global__ void embedding_kernel(nd_floats x, nd_floats table, const int32_t *ids, int64_t vocab,
                                 int64_t n, bool wide)
{
    const int64_t t = blockIdx.x, id = ids[t];
    if (id < 0 || id >= vocab)
        return;
    for (int64_t i = (int64_t)threadIdx.x * ND_WIDE; i < n; i += (int64_t)blockDim.x * ND_WIDE) {
        float a[ND_WIDE];
        nd_load_wide(table, id * n + i, n - i, wide, a);
        nd_store_wide(x, t * n + i, n - i, wide, a);
    }
}

enum { LINK_THREADS = 256 };

/* next[t]: the next position with the same token, or -1; is_first[t]: there is none before. Each
 * thread scans all positions, which for 16,000 tokens costs less than reading their gradients. */
__global__ void link_kernel(int32_t *next, uint8_t *is_first, const int32_t *ids, int32_t count)
{
    __shared__ int32_t tile[LINK_THREADS];
    const int32_t t = (int32_t)(blockIdx.x * LINK_THREADS + threadIdx.x);
    const int32_t mine = t < count ? ids[t] : -1;
    int32_t after = -1;
    bool earlier = false;
    for (int32_t base = 0; base < count; base += LINK_THREADS) {
        __syncthreads();
        if (base + (int32_t)threadIdx.x < count)
            tile[threadIdx.x] = ids[base + (int32_t)threadIdx.x];
        __syncthreads();
        const int32_t length = count - base < LINK_THREADS ? count - base : LINK_THREADS;
        for (int32_t i = 0; i < length; i++) {
            const bool same = tile[i] == mine;
            earlier |= same && base + i < t;
            if (same && base + i > t && after < 0)
                after = base + i;
        }
    }
    if (t < count) {
        next[t] = after;
        is_first[t] = !earlier;
    }
}

/* The block of a token's first position adds all its rows in order. */
__global__ void embedding_backward_kernel(float *dtable, nd_floats dx, const int32_t *ids,
                                          const int32_t *next, const uint8_t *is_first,
                                          int64_t vocab, int64_t n, bool wide)
{
    const int64_t t = blockIdx.x, id = ids[t];
    if (!is_first[t] || id < 0 || id >= vocab)
        return;
    const nd_floats table = {dtable, ND_F32};
    for (int64_t i = (int64_t)threadIdx.x * ND_WIDE; i < n; i += (int64_t)blockDim.x * ND_WIDE) {
        float sum[ND_WIDE], a[ND_WIDE];
        nd_load_wide(table, id * n + i, n - i, wide, sum);
        for (int64_t s = t; s >= 0; s = next[s]) {
            nd_load_wide(dx, s * n + i, n - i, wide, a);
            for (int j = 0; j < ND_WIDE; j++)
                sum[j] += a[j];
        }
        nd_store_wide(table, id * n + i, n - i, wide, sum);
    }
}

/* With m the largest logit: S = sum e^(z-m), E = sum (z-m) e^(z-m), Q = sum e^(2(z-m)),
 * Z = sum z. */
struct row_sums {
    float largest, s, e, q, z;
};

__device__ __forceinline__ void rescale(row_sums *r, float largest)
{
    if (r->largest == largest)
        return;
    if (r->largest > -INFINITY) {
        const float shift = r->largest - largest, factor = expf(shift);
        r->e = (r->e + shift * r->s) * factor;
        r->s *= factor;
        r->q *= factor * factor;
    }
    r->largest = largest;
}

__device__ __forceinline__ row_sums sum_row(nd_floats logits, int64_t row, int64_t vocab, bool wide,
                                            float *shared)
{
    row_sums r = {-INFINITY, 0.0f, 0.0f, 0.0f, 0.0f};
    for (int64_t i = (int64_t)threadIdx.x * ND_WIDE; i < vocab;
         i += (int64_t)blockDim.x * ND_WIDE) {
        float z[ND_WIDE];
        nd_load_wide(logits, row + i, vocab - i, wide, z);
        float largest = r.largest;
        for (int j = 0; j < ND_WIDE; j++)
            if (i + j < vocab)
                largest = fmaxf(largest, z[j]);
        rescale(&r, largest);
        for (int j = 0; j < ND_WIDE; j++)
            if (i + j < vocab) {
                const float shifted = z[j] - largest, p = expf(shifted);
                r.s += p;
                r.e += shifted * p;
                r.q += p * p;
                r.z += z[j];
            }
    }
    const float largest = nd_block_max(r.largest, shared);
    rescale(&r, largest);
    r.s = nd_block_sum(r.s, shared);
    r.e = nd_block_sum(r.e, shared);
    r.q = nd_block_sum(r.q, shared);
    r.z = nd_block_sum(r.z, shared);
    return r;
}

/* From the softmax to the target, whose loss is `nll`. */
__device__ __forceinline__ float distance(const row_sums &r, float nll)
{
    const float target = expf(-nll);
    const float others = fmaxf(r.q / (r.s * r.s) - target * target, 0.0f);
    return sqrtf(others + (1.0f - target) * (1.0f - target));
}

__global__ void cross_entropy_kernel(nd_floats nll, nd_floats total, nd_floats logits,
                                     nd_floats dlogits, const int32_t *all_targets, int64_t vocab,
                                     int offsets, nd_cross_entropy_params p, nd_floats norm,
                                     nd_floats weight, bool wide)
{
    __shared__ float shared[32];
    const int64_t t = blockIdx.x, row = t * vocab;
    const int32_t *targets = all_targets + t * offsets;
    const bool present = targets[0] >= 0 && targets[0] < vocab;
    row_sums r = {0.0f, 1.0f, 0.0f, 0.0f, 0.0f};
    if (present)
        r = sum_row(logits, row, vocab, wide, shared);
    const float log_sum = logf(r.s), lse = r.largest + log_sum;
    const float entropy = log_sum - r.e / r.s;
    const float mean = r.z / (float)vocab - lse, smooth = p.label_smoothing;
    float weights = 0.0f, offset_weight[ND_OFFSETS_MAX];
    ND_UNROLL
    for (int j = 0; j < ND_OFFSETS_MAX; j++) {
        offset_weight[j] = 0.0f;
        if (present && j < offsets && targets[j] >= 0 && targets[j] < vocab)
            offset_weight[j] = j == 0 ? 1.0f : p.offset_weight[j];
        weights += offset_weight[j];
    }
    if (threadIdx.x == 0) {
        float row_nll = 0.0f, row_total = 0.0f;
        if (present) {
            /* Not lse - z, which would cancel for a likely target. */
            row_nll = (r.largest - nd_load_one(logits, row + targets[0])) + log_sum;
            row_total = p.z_loss_weight * lse * lse - p.entropy_weight * entropy;
            ND_UNROLL
            for (int j = 0; j < ND_OFFSETS_MAX; j++)
                if (offset_weight[j] != 0.0f) {
                    const float offset_nll =
                        (r.largest - nd_load_one(logits, row + targets[j])) + log_sum;
                    row_total += offset_weight[j] * ((1.0f - smooth) * offset_nll - smooth * mean);
                }
        }
        nd_store_one(nll, t, row_nll);
        nd_store_one(total, t, row_total);
        if (norm.data)
            nd_store_one(norm, t, present ? distance(r, row_nll) : 0.0f);
    }
    if (p.gradient_scale == 0.0f)
        return;
    __syncthreads(); /* the logits of the targets have been read */
    const float scale = p.gradient_scale * (weight.data ? nd_load_one(weight, t) : 1.0f);
    const float flat = weights * smooth / (float)vocab;
    const float linear = weights + 2.0f * p.z_loss_weight * lse;
    for (int64_t i = (int64_t)threadIdx.x * ND_WIDE; i < vocab;
         i += (int64_t)blockDim.x * ND_WIDE) {
        float z[ND_WIDE];
        nd_load_wide(logits, row + i, vocab - i, wide, z);
        for (int k = 0; k < ND_WIDE; k++) {
            const float log_p = z[k] - lse, prob = expf(log_p);
            float d = linear * prob - flat + p.entropy_weight * prob * (log_p + entropy);
            ND_UNROLL
            for (int j = 0; j < ND_OFFSETS_MAX; j++)
                if (j < offsets && i + k == targets[j])
                    d -= (1.0f - smooth) * offset_weight[j];
            z[k] = present ? scale * d : 0.0f;
        }
        nd_store_wide(dlogits, row + i, vocab - i, wide, z);
    }
}

static nd_status embedding_cuda(nd_backend *b, nd_view x, nd_cview table, nd_cview tokens)
{
    nd_cuda *cuda = nd_cuda_of(b);
    ND_REQUIRE(nd_all_wide(x.dtype, table.dtype) && x.cols == table.cols);
    ND_TRY(check_tokens(cuda, tokens, x.rows, table.rows, 0));
    if (x.rows * x.cols == 0)
        return ND_OK;
    return ND_CUDA(ND_LAUNCH(embedding_kernel, dim3((unsigned)x.rows), dim3(nd_row_threads(x.cols)),
                             0, cuda->stream, nd_floats_of(x), nd_floats_of(table),
                             static_cast<const int32_t *>(tokens.data), table.rows, x.cols,
                             nd_aligned(x.cols, x.data, table.data)));
}

static nd_status embedding_backward_cuda(nd_backend *b, nd_view dtable, nd_cview dx,
                                         nd_cview tokens)
{
    nd_cuda *cuda = nd_cuda_of(b);
    const int64_t count = dx.rows;
    const int32_t *ids = static_cast<const int32_t *>(tokens.data);
    ND_REQUIRE(dtable.dtype == ND_F32 && nd_all_wide(dx.dtype) && dx.cols == dtable.cols);
    ND_REQUIRE(count < INT_MAX);
    ND_TRY(check_tokens(cuda, tokens, count, dtable.rows, 0));
    if (count * dx.cols == 0)
        return ND_OK;
    const size_t links = nd_scratch_bytes(count, sizeof(int32_t));
    void *scratch;
    ND_TRY(nd_cuda_scratch(cuda, links + (size_t)count, &scratch));
    int32_t *next = static_cast<int32_t *>(scratch);
    uint8_t *is_first = static_cast<uint8_t *>(scratch) + links;
    ND_CUDA_TRY(ND_LAUNCH(link_kernel, dim3((unsigned)nd_ceil(count, LINK_THREADS)),
                          dim3(LINK_THREADS), 0, cuda->stream, next, is_first, ids,
                          (int32_t)count));
    return ND_CUDA(
        ND_LAUNCH(embedding_backward_kernel, dim3((unsigned)count), dim3(nd_row_threads(dx.cols)),
                  0, cuda->stream, static_cast<float *>(dtable.data), nd_floats_of(dx), ids, next,
                  is_first, dtable.rows, dx.cols, nd_aligned(dx.cols, dtable.data, dx.data)));
}

static nd_status cross_entropy_cuda(nd_backend *b, nd_view nll, nd_view total, nd_view logits,
                                    nd_cview targets, const nd_cross_entropy_params *p)
{
    nd_cuda *cuda = nd_cuda_of(b);
    const int offsets = nd_cross_entropy_offsets(p);
    ND_REQUIRE(nd_all_wide(logits.dtype) && nll.rows == logits.rows);
    ND_REQUIRE(nd_is_float(nll.dtype) && nd_is_float(total.dtype) && total.rows == logits.rows);
    ND_REQUIRE(offsets <= ND_OFFSETS_MAX);
    ND_REQUIRE(!p->norm.data || p->norm.rows == logits.rows);
    ND_REQUIRE(!p->weight.data || p->weight.rows == logits.rows);
    const nd_view dlogits = p->gradient.data ? p->gradient : logits;
    ND_REQUIRE(nd_all_wide(dlogits.dtype) && dlogits.rows == logits.rows);
    ND_REQUIRE(dlogits.cols == logits.cols);
    ND_TRY(check_tokens(cuda, targets, logits.rows * offsets, logits.cols, -1));
    if (logits.rows * logits.cols == 0)
        return ND_OK;
    return ND_CUDA(ND_LAUNCH(
        cross_entropy_kernel, dim3((unsigned)logits.rows), dim3(nd_row_threads(logits.cols)), 0,
        cuda->stream, nd_floats_of(nll), nd_floats_of(total), nd_floats_of(logits),
        nd_floats_of(dlogits), static_cast<const int32_t *>(targets.data), logits.cols, offsets, *p,
        nd_floats_of(p->norm), nd_floats_of(p->weight),
        nd_aligned(logits.cols, logits.data) && nd_aligned(logits.cols, dlogits.data)));
}

void nd_cuda_fill_loss(nd_backend_ops *ops)
{
    ops->embedding = embedding_cuda;
    ops->embedding_backward = embedding_backward_cuda;
    ops->cross_entropy = cross_entropy_cuda;
}
