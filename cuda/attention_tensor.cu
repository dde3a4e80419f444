/* Attention in bf16 on tensor cores, one pass over the keys with an online softmax (Dao et al.,
 * arXiv:2205.14135, 2307.08691). A block holds 64 queries, 16 in each of four warps; tiles of keys
 * and values are loaded to shared memory while the previous one is used. */
#include "attention_tiles.cuh"

namespace
{

/* S = Q Kᵀ for the 16 queries from `row` on and the tile's 64 keys. Queries are reloaded for every
 * tile: in registers they would leave too few for the results. */
template <int D>
__device__ __forceinline__ void scores_of(float s[ROWS / 8][4], uint16_t *queries, int row,
                                          uint16_t *keys)
{
    clear<ROWS / 8>(s);
    ND_UNROLL
    for (int at = 0; at < D / 16; at++) {
        uint32_t q[4];
        load_left<D>(q, queries, row, at);
        add_scores<D, ROWS>(s, q, keys, 0, at);
    }
}

/* Online softmax: scores become weights; earlier sums are rescaled to the new maximum. */
template <int D>
__device__ __forceinline__ void take_scores(float p[ROWS / 8][4], float acc[D / 8][4],
                                            float largest[2], float sum[2], float scale)
{
    ND_UNROLL
    for (int half = 0; half < 2; half++) {
        float top = largest[half];
        ND_UNROLL
        for (int j = 0; j < ROWS / 8; j++)
            top = fmaxf(top, fmaxf(p[j][2 * half], p[j][2 * half + 1]));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
        const float zero = top > -INFINITY ? top * scale : 0.0f; /* no visible key yet */
        /* exactly 1 if the maximum is unchanged: the number of unseen tiles depends
         * on neighbors */
        const float kept = top == largest[half] ? 1.0f : exp2f((largest[half] - top) * scale);
        largest[half] = top;
        sum[half] *= kept;
        ND_UNROLL
        for (int j = 0; j < ROWS / 8; j++)
            ND_UNROLL
        for (int e = 2 * half; e < 2 * half + 2; e++) {
            p[j][e] = exp2f(p[j][e] * scale - zero);
            sum[half] += p[j][e];
        }
        ND_UNROLL
        for (int i = 0; i < D / 8; i++) {
            acc[i][2 * half] *= kept;
            acc[i][2 * half + 1] *= kept;
        }
    }
}

/* Masks the scores of keys from `key0` on that a row does not see. */
__device__ __forceinline__ void hide_unseen(float p[ROWS / 8][4], int key0, const int sight[2])
{
    ND_UNROLL
    for (int j = 0; j < ROWS / 8; j++)
        ND_UNROLL
    for (int e = 0; e < 4; e++)
        if (key0 + 8 * j + (int)threadIdx.x % 4 * 2 + e % 2 >= sight[e / 2])
            p[j][e] = -INFINITY;
}

/* The divisor of each of this thread's two rows; stores lse. */
__device__ __forceinline__ void finish_sums(nd_floats lse, float factor[2], const float largest[2],
                                            float sum[2], const nd_attention_layout &s, int64_t row,
                                            int head)
{
    ND_UNROLL
    for (int half = 0; half < 2; half++, row += 8) {
        sum[half] += __shfl_xor_sync(0xffffffffu, sum[half], 1);
        sum[half] += __shfl_xor_sync(0xffffffffu, sum[half], 2);
        factor[half] = sum[half] > 0.0f ? 1.0f / sum[half] : 0.0f;
        if (threadIdx.x % 4 == 0 && row < s.query_rows)
            nd_store_one(lse, row * s.heads + head,
                         sum[half] > 0.0f ? largest[half] * s.scale + logf(sum[half]) : 0.0f);
    }
}

template <int D>
__global__ void __launch_bounds__(THREADS)
    attention_forward_kernel(uint16_t *o, nd_floats lse, const uint16_t *q, const uint16_t *k,
                             const uint16_t *v, nd_attention_layout s)
{
    ND_DYNAMIC_SHARED(memory);
    __shared__ tile_places places;
    uint16_t *queries = reinterpret_cast<uint16_t *>(memory);
    uint16_t *stages = queries + ROWS * D; /* two of {keys, values} */
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, d = s.head_dim;
    const int head = (int)blockIdx.y, kv_head = head / (s.heads / s.kv_heads);
    /* the longest rows first, so that the last blocks are short */
    const int64_t first = (int64_t)(gridDim.x - 1 - blockIdx.x) * ROWS;
    const int64_t q_stride = (int64_t)s.heads * d, kv_stride = (int64_t)s.kv_heads * d;
    fetch<D, ROWS>(queries, q, first * q_stride + (int64_t)head * d, q_stride, s.query_rows - first,
                   d);
    nd_copy_commit();
    place_queries(&places, s, first);
    nd_copy_wait<0>();
    __syncthreads();
    float acc[D / 8][4], largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};
    clear<D / 8>(acc);
    const float scale = s.scale * LOG2_E;
    const int end = last_sequence(&places);
    for (int sequence = places.sequence[0]; sequence >= 0 && sequence <= end; sequence++) {
        int most, least, sight[2];
        limits_of(&places, sequence, &most, &least);
        sight_of(&places, sequence, sight);
        const int64_t base = (int64_t)sequence * s.key_len * kv_stride + (int64_t)kv_head * d;
        const int tiles = (most + ROWS - 1) / ROWS;
        __syncthreads(); /* the previous sequence's stages are free */
        if (tiles > 0)
            fetch_keys<D>(stages, k, v, s, base, 0);
        nd_copy_commit();
        for (int tile = 0; tile < tiles; tile++) {
            const int key0 = tile * ROWS;
            uint16_t *keys = next_keys<D>(stages, tile, tiles, k, v, s, base);
            uint16_t *values = keys + ROWS * D;
            float p[ROWS / 8][4];
            scores_of<D>(p, queries, 16 * warp, keys);
            if (key0 + ROWS > least)
                hide_unseen(p, key0, sight);
            take_scores<D>(p, acc, largest, sum, scale);
            ND_UNROLL
            for (int j = 0; j < ROWS / 16; j++) {
                uint32_t weights[4];
                as_left(weights, p[2 * j], p[2 * j + 1]);
                add_rows<D>(acc, weights, values, 16 * j);
            }
            __syncthreads(); /* the stage may be overwritten */
        }
        nd_copy_wait<0>();
    }
    float factor[2];
    finish_sums(lse, factor, largest, sum, s, first + 16 * warp + lane / 4, head);
    store_rows<D>(o + (int64_t)head * d, q_stride, first + 16 * warp, s.query_rows, d, acc,
                  factor[0], factor[1]);
}

template <int D>
nd_status forward(nd_cuda *cuda, nd_view o, nd_view lse, nd_cview q, nd_cview k, nd_cview v,
                  const nd_attention_layout *s)
{
    const size_t shared = (size_t)(5 * ROWS * D) * sizeof(uint16_t);
    const dim3 grid((unsigned)nd_ceil(s->query_rows, ROWS), (unsigned)s->heads);
    ND_TRY(allow(attention_forward_kernel<D>, shared));
    return ND_CUDA(ND_LAUNCH(attention_forward_kernel<D>, grid, dim3(THREADS), shared, cuda->stream,
                             elements(o), nd_floats_of(lse), elements(q), elements(k), elements(v),
                             *s));
}

} // namespace

nd_status nd_cuda_attention_tensor(nd_cuda *cuda, nd_view o, nd_view lse, nd_cview q, nd_cview k,
                                   nd_cview v, const nd_attention_layout *s)
{
    if (s->head_dim <= 64)
        return forward<64>(cuda, o, lse, q, k, v, s);
    return forward<128>(cuda, o, lse, q, k, v, s);
}
