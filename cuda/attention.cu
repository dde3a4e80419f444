/* Attention of any float type with head_dim up to 256, in f32, one warp per row and head; and the
 * choice between cuDNN, these kernels and attention_tensor.cu. Without atomics: the warp of a query
 * sums its dq over keys, the warp of a key its dk and dv over queries. */
#include "attention.cuh"

enum { HEAD_MAX = 256, PARTS = HEAD_MAX / 32, WARPS = 4 };

__device__ __forceinline__ float dot(nd_floats a, int64_t at, nd_floats b, int64_t bt, int n)
{
    float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int i = 0; i < n; i += 4)
        ND_UNROLL
    for (int j = 0; j < 4; j++)
        if (i + j < n)
            sums[j] += nd_load_one(a, at + i + j) * nd_load_one(b, bt + i + j);
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

/* acc[i] += x * row[lane + 32 i] */
__device__ __forceinline__ void add_row(float acc[PARTS], float x, nd_floats v, int64_t at, int n)
{
    const int lane = (int)threadIdx.x % 32;
    ND_UNROLL
    for (int i = 0; i < PARTS; i++)
        if (lane + 32 * i < n)
            acc[i] += x * nd_load_one(v, at + lane + 32 * i);
}

__device__ __forceinline__ void store_row(nd_floats v, int64_t at, int n, const float acc[PARTS],
                                          float factor)
{
    const int lane = (int)threadIdx.x % 32;
    ND_UNROLL
    for (int i = 0; i < PARTS; i++)
        if (lane + 32 * i < n)
            nd_store_one(v, at + lane + 32 * i, acc[i] * factor);
}

__global__ void attention_kernel(nd_floats o, nd_floats lse, nd_floats q, nd_floats k, nd_floats v,
                                 nd_attention_layout s)
{
    const int lane = (int)threadIdx.x % 32, d = s.head_dim;
    const int64_t item = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    const int64_t row = item / s.heads, head = item % s.heads;
    if (row >= s.query_rows)
        return;
    const nd_query_place place = nd_query_of(s, row);
    const int64_t stride = (int64_t)s.kv_heads * d, at = (row * s.heads + head) * d;
    const int64_t first = place.sequence * s.key_len * stride + head / (s.heads / s.kv_heads) * d;
    float largest = -INFINITY, sum = 0.0f, acc[PARTS];
    ND_UNROLL
    for (int i = 0; i < PARTS; i++)
        acc[i] = 0.0f;
    for (int base = 0; base < place.visible; base += 32) {
        const int j = base + lane;
        const float score =
            j < place.visible ? dot(q, at, k, first + j * stride, d) * s.scale : -INFINITY;
        const float top = fmaxf(largest, nd_warp_max(score));
        const float p = expf(score - top), kept = expf(largest - top);
        sum = sum * kept + nd_warp_sum(p);
        largest = top;
        ND_UNROLL
        for (int i = 0; i < PARTS; i++)
            acc[i] *= kept;
        for (int other = 0; other < 32 && base + other < place.visible; other++)
            add_row(acc, __shfl_sync(0xffffffffu, p, other), v, first + (base + other) * stride, d);
    }
    store_row(o, at, d, acc, sum > 0.0f ? 1.0f / sum : 0.0f);
    if (lane == 0)
        nd_store_one(lse, row * s.heads + head, sum > 0.0f ? largest + logf(sum) : 0.0f);
}

/* delta[row, head] = dout . o */
__global__ void delta_kernel(float *delta, nd_floats dout, nd_floats o, int64_t items, int d)
{
    const int64_t item = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    const int lane = (int)threadIdx.x % 32;
    if (item >= items)
        return;
    float sum = 0.0f;
    for (int i = lane; i < d; i += 32)
        sum += nd_load_one(dout, item * d + i) * nd_load_one(o, item * d + i);
    sum = nd_warp_sum(sum);
    if (lane == 0)
        delta[item] = sum;
}

__global__ void attention_dq_kernel(nd_floats dq, nd_floats dout, nd_floats lse, const float *delta,
                                    nd_floats q, nd_floats k, nd_floats v, nd_attention_layout s)
{
    const int lane = (int)threadIdx.x % 32, d = s.head_dim;
    const int64_t item = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    const int64_t row = item / s.heads, head = item % s.heads;
    if (row >= s.query_rows)
        return;
    const nd_query_place place = nd_query_of(s, row);
    const int64_t stride = (int64_t)s.kv_heads * d, at = (row * s.heads + head) * d;
    const int64_t first = place.sequence * s.key_len * stride + head / (s.heads / s.kv_heads) * d;
    const float total = place.visible > 0 ? nd_load_one(lse, item) : 0.0f;
    float acc[PARTS];
    ND_UNROLL
    for (int i = 0; i < PARTS; i++)
        acc[i] = 0.0f;
    for (int base = 0; base < place.visible; base += 32) {
        const int64_t key = first + (int64_t)(base + lane) * stride;
        float change = 0.0f;
        if (base + lane < place.visible) {
            const float p = expf(dot(q, at, k, key, d) * s.scale - total);
            change = p * (dot(dout, at, v, key, d) - delta[item]);
        }
        for (int other = 0; other < 32 && base + other < place.visible; other++)
            add_row(acc, __shfl_sync(0xffffffffu, change, other), k,
                    first + (int64_t)(base + other) * stride, d);
    }
    store_row(dq, at, d, acc, s.scale);
}

__global__ void attention_dkv_kernel(nd_floats dk, nd_floats dv, nd_floats dout, nd_floats lse,
                                     const float *delta, nd_floats q, nd_floats k, nd_floats v,
                                     nd_attention_layout s)
{
    const int lane = (int)threadIdx.x % 32, d = s.head_dim, group = s.heads / s.kv_heads;
    const int64_t item = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    const int64_t row = item / s.kv_heads, kv_head = item % s.kv_heads;
    if (row >= s.key_rows)
        return;
    const nd_key_place key = nd_key_of(s, row);
    const int64_t key_at = (key.token * s.kv_heads + kv_head) * d;
    float dk_sum[PARTS], dv_sum[PARTS];
    ND_UNROLL
    for (int i = 0; i < PARTS; i++)
        dk_sum[i] = dv_sum[i] = 0.0f;
    const int64_t begin = key.token < 0 ? 0 : nd_first_query(s, row, key);
    const int64_t end = key.token < 0 ? 0 : nd_end_of_queries(s, row, key);
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++)
        for (int64_t base = begin; base < end; base += 32) {
            const int64_t mine = base + lane, at = (mine * s.heads + head) * d;
            float p = 0.0f, change = 0.0f;
            if (mine < end && key.position < nd_query_of(s, mine).visible) {
                const int64_t entry = mine * s.heads + head;
                p = expf(dot(q, at, k, key_at, d) * s.scale - nd_load_one(lse, entry));
                change = p * (dot(dout, at, v, key_at, d) - delta[entry]);
            }
            for (int other = 0; other < 32 && base + other < end; other++) {
                const int64_t from = ((base + other) * s.heads + head) * d;
                add_row(dk_sum, __shfl_sync(0xffffffffu, change, other), q, from, d);
                add_row(dv_sum, __shfl_sync(0xffffffffu, p, other), dout, from, d);
            }
        }
    store_row(dk, (row * s.kv_heads + kv_head) * d, d, dk_sum, s.scale);
    store_row(dv, (row * s.kv_heads + kv_head) * d, d, dv_sum, 1.0f);
}

static nd_status check_shapes(nd_cview q, nd_cview k, nd_cview v, const nd_attention_shape *s)
{
    const int64_t rows = s->rows.data ? s->rows.cols : s->sequences * s->query_len;
    ND_REQUIRE(nd_all_wide(q.dtype, k.dtype, v.dtype));
    ND_REQUIRE(s->kv_heads > 0 && s->heads % s->kv_heads == 0 && s->query_len <= s->key_len);
    ND_REQUIRE(q.rows == rows && q.cols == s->heads * s->head_dim && s->head_dim <= HEAD_MAX);
    ND_REQUIRE(k.rows == s->sequences * s->key_len && k.cols == s->kv_heads * s->head_dim);
    ND_REQUIRE(nd_same_shape(k, v) && (!s->rows.data || s->query_len == s->key_len));
    return ND_OK;
}

static nd_attention_layout layout_of(nd_cview q, nd_cview k, const nd_attention_shape *s)
{
    nd_attention_layout l;
    l.query_len = s->query_len;
    l.key_len = s->key_len;
    l.query_rows = q.rows;
    l.rows = static_cast<const int32_t *>(s->rows.data);
    l.key_rows = l.rows ? q.rows : k.rows;
    l.heads = (int)s->heads;
    l.kv_heads = (int)s->kv_heads;
    l.head_dim = (int)s->head_dim;
    l.scale = (float)(1.0 / sqrt((double)s->head_dim));
    return l;
}

static bool suits_tensor_cores(nd_cview v, int64_t head_dim)
{
    return v.dtype == ND_BF16 && head_dim % 8 == 0 && head_dim <= 128 &&
           (uintptr_t)v.data % 16 == 0;
}

nd_status nd_cuda_attention_builtin(nd_backend *b, nd_view o, nd_view lse, nd_cview q, nd_cview k,
                                    nd_cview v, const nd_attention_shape *s)
{
    nd_cuda *cuda = nd_cuda_of(b);
    const nd_attention_layout layout = layout_of(q, k, s);
    if (suits_tensor_cores(q, s->head_dim) && suits_tensor_cores(k, s->head_dim) &&
        suits_tensor_cores(v, s->head_dim) && suits_tensor_cores(nd_as_const(o), s->head_dim))
        return nd_cuda_attention_tensor(cuda, o, lse, q, k, v, &layout);
    return ND_CUDA(ND_LAUNCH(attention_kernel, dim3((unsigned)nd_ceil(q.rows * s->heads, WARPS)),
                             dim3(WARPS * 32), 0, cuda->stream, nd_floats_of(o), nd_floats_of(lse),
                             nd_floats_of(q), nd_floats_of(k), nd_floats_of(v), layout));
}

static nd_status attention_cuda(nd_backend *b, nd_view o, nd_view lse, nd_cview q, nd_cview k,
                                nd_cview v, const nd_attention_shape *s)
{
    ND_TRY(check_shapes(q, k, v, s));
    ND_REQUIRE(nd_same_shape(nd_as_const(o), q) && lse.rows == q.rows && lse.cols == s->heads);
    ND_REQUIRE(nd_all_wide(o.dtype) && nd_is_float(lse.dtype));
    if (q.rows == 0)
        return ND_OK;
    bool done;
    ND_TRY(nd_cuda_attention_library(b, o, lse, q, k, v, s, &done));
    return done ? ND_OK : nd_cuda_attention_builtin(b, o, lse, q, k, v, s);
}

nd_status nd_cuda_attention_backward_builtin(nd_backend *b, const nd_attention_gradients *g,
                                             const nd_attention_shape *s)
{
    nd_cuda *cuda = nd_cuda_of(b);
    const nd_attention_layout l = layout_of(g->q, g->k, s);
    const int64_t items = l.query_rows * s->heads, keys = l.key_rows * s->kv_heads;
    void *scratch;
    ND_TRY(nd_cuda_scratch(cuda, (size_t)(items > 0 ? items : 1) * sizeof(float), &scratch));
    float *delta = static_cast<float *>(scratch);
    const dim3 block(WARPS * 32);
    const nd_floats dout = nd_floats_of(g->dout), lse = nd_floats_of(g->lse),
                    q = nd_floats_of(g->q), k = nd_floats_of(g->k), v = nd_floats_of(g->v);
    if (items > 0)
        ND_CUDA_TRY(ND_LAUNCH(delta_kernel, dim3((unsigned)nd_ceil(items, WARPS)), block, 0,
                              cuda->stream, delta, dout, nd_floats_of(g->o), items, l.head_dim));
    const nd_cview all[] = {
        g->q, g->k, g->v, g->dout, nd_as_const(g->dq), nd_as_const(g->dk), nd_as_const(g->dv)};
    bool tensor = g->lse.dtype == ND_F32;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        tensor = tensor && suits_tensor_cores(all[i], s->head_dim);
    if (tensor)
        return nd_cuda_attention_backward_tensor(cuda, g, delta, &l);
    if (items > 0)
        ND_CUDA_TRY(ND_LAUNCH(attention_dq_kernel, dim3((unsigned)nd_ceil(items, WARPS)), block, 0,
                              cuda->stream, nd_floats_of(g->dq), dout, lse, delta, q, k, v, l));
    return ND_CUDA(ND_LAUNCH(attention_dkv_kernel, dim3((unsigned)nd_ceil(keys, WARPS)), block, 0,
                             cuda->stream, nd_floats_of(g->dk), nd_floats_of(g->dv), dout, lse,
                             delta, q, k, v, l));
}

static nd_status attention_backward_cuda(nd_backend *b, nd_view dq, nd_view dk, nd_view dv,
                                         nd_cview dout, nd_cview o, nd_cview lse, nd_cview q,
                                         nd_cview k, nd_cview v, const nd_attention_shape *s)
{
    ND_TRY(check_shapes(q, k, v, s));
    ND_REQUIRE(nd_same_shape(nd_as_const(dq), q) && nd_same_shape(dout, q) && nd_same_shape(o, q));
    ND_REQUIRE(nd_all_wide(dq.dtype, dk.dtype, dv.dtype, dout.dtype, o.dtype) &&
               nd_is_float(lse.dtype));
    const nd_attention_layout l = layout_of(q, k, s);
    ND_REQUIRE(dk.rows == l.key_rows && dv.rows == l.key_rows);
    ND_REQUIRE(dk.cols == k.cols && dv.cols == k.cols);
    if (l.key_rows == 0)
        return ND_OK;
    const nd_attention_gradients g = {dq, dk, dv, dout, o, lse, q, k, v};
    bool done;
    ND_TRY(nd_cuda_attention_backward_library(b, &g, s, &done));
    return done ? ND_OK : nd_cuda_attention_backward_builtin(b, &g, s);
}

void nd_cuda_fill_attention(nd_backend_ops *ops)
{
    ops->attention = attention_cuda;
    ops->attention_backward = attention_backward_cuda;
}
