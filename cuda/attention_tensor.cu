/* Attention in bf16 on tensor cores, one pass over the keys with a running maximum (Dao et al.,
 * arXiv:2205.14135, 2307.08691). A block holds 64 queries (forward, dq) or 64 keys (dk and dv), four
 * warps of 16 each; the other side comes through shared memory in tiles, the next one on its way while
 * one is used. dq and (dk, dv) are separate kernels: each output has one owner, in a fixed order.
 */
#include "attention_tiles.cuh"

namespace
{

/* The sequences that a tile's rows belong to, and how far each sees. */
struct tile_places {
    int sequence[ROWS], visible[ROWS];
};

__device__ __forceinline__ void place_queries(tile_places *places, const nd_attention_layout &s,
                                              int64_t first)
{
    if (threadIdx.x < ROWS) {
        const nd_query_place place = nd_query_of(s, first + threadIdx.x);
        places->sequence[threadIdx.x] = place.sequence;
        places->visible[threadIdx.x] = place.visible;
    }
    __syncthreads();
}

/* Keys that some row of `sequence` sees, and keys that every row of the tile sees. */
__device__ __forceinline__ void limits_of(const tile_places *places, int sequence, int *most,
                                          int *least)
{
    *most = 0;
    *least = 1 << 30;
    for (int r = 0; r < ROWS; r++) {
        const int visible = places->sequence[r] == sequence ? places->visible[r] : 0;
        *most = visible > *most ? visible : *most;
        *least = visible < *least ? visible : *least;
    }
}

/* The last sequence of the tile, -1 when it has none; the first is that of row 0. */
__device__ __forceinline__ int last_sequence(const tile_places *places)
{
    int last = -1;
    for (int r = 0; r < ROWS; r++)
        last = places->sequence[r] > last ? places->sequence[r] : last;
    return last;
}

/* S = Q Kᵀ for the 16 queries from `row` on and the tile's 64 keys. The queries are read again for every
 * tile: held in registers they would leave too few for the results. */
template <int D>
__device__ __forceinline__ void scores_of(float s[ROWS / 8][4], uint16_t *queries, int row,
                                          uint16_t *keys)
{
    clear<ROWS / 8>(s);
    ND_UNROLL
    for (int at = 0; at < D / 16; at++) {
        uint32_t q[4];
        load_left<D>(q, queries, row, at);
        ND_UNROLL
        for (int j = 0; j < ROWS / 16; j++) {
            uint32_t k[4];
            load_right<D>(k, keys, 16 * j, at);
            nd_mma_bf16(s[2 * j], q, k[0], k[1]);
            nd_mma_bf16(s[2 * j + 1], q, k[2], k[3]);
        }
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
        ND_UNROLL
        for (int half = 0; half < 2; half++) {
            const int r = 16 * warp + lane / 4 + 8 * half;
            sight[half] = places.sequence[r] == sequence ? places.visible[r] : 0;
        }
        const int64_t base = (int64_t)sequence * s.key_len * kv_stride + (int64_t)kv_head * d;
        const int tiles = (most + ROWS - 1) / ROWS;
        __syncthreads(); /* the stages of the sequence before are free */
        if (tiles > 0) {
            fetch<D, ROWS>(stages, k, base, kv_stride, s.key_len, d);
            fetch<D, ROWS>(stages + ROWS * D, v, base, kv_stride, s.key_len, d);
        }
        nd_copy_commit();
        for (int tile = 0; tile < tiles; tile++) {
            const int key0 = tile * ROWS;
            uint16_t *keys = stages + tile % 2 * 2 * ROWS * D, *values = keys + ROWS * D;
            if (tile + 1 < tiles) {
                uint16_t *next = stages + (tile + 1) % 2 * 2 * ROWS * D;
                const int64_t at = base + (int64_t)(key0 + ROWS) * kv_stride;
                fetch<D, ROWS>(next, k, at, kv_stride, s.key_len - key0 - ROWS, d);
                fetch<D, ROWS>(next + ROWS * D, v, at, kv_stride, s.key_len - key0 - ROWS, d);
            }
            nd_copy_commit();
            nd_copy_wait<1>();
            __syncthreads();
            float p[ROWS / 8][4];
            scores_of<D>(p, queries, 16 * warp, keys);
            if (key0 + ROWS > least) {
                ND_UNROLL
                for (int j = 0; j < ROWS / 8; j++)
                    ND_UNROLL
                for (int e = 0; e < 4; e++)
                    if (key0 + 8 * j + lane % 4 * 2 + e % 2 >= sight[e / 2])
                        p[j][e] = -INFINITY;
            }
            ND_UNROLL
            for (int half = 0; half < 2; half++) {
                float top = largest[half];
                ND_UNROLL
                for (int j = 0; j < ROWS / 8; j++)
                    top = fmaxf(top, fmaxf(p[j][2 * half], p[j][2 * half + 1]));
                top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
                top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
                const float zero = top > -INFINITY ? top * scale : 0.0f; /* nothing seen yet */
                /* Exactly 1 where the maximum stays: how many tiles of keys that it does not see a
                 * row meets depends on its neighbours. */
                const float kept =
                    top == largest[half] ? 1.0f : exp2f((largest[half] - top) * scale);
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
            ND_UNROLL
            for (int j = 0; j < ROWS / 16; j++) {
                uint32_t weights[4];
                as_left(weights, p[2 * j], p[2 * j + 1]);
                ND_UNROLL
                for (int i = 0; i < D / 16; i++) {
                    uint32_t value[4];
                    load_right_transposed<D>(value, values, 16 * j, i);
                    nd_mma_bf16(acc[2 * i], weights, value[0], value[1]);
                    nd_mma_bf16(acc[2 * i + 1], weights, value[2], value[3]);
                }
            }
            __syncthreads(); /* the stage may be filled again */
        }
        nd_copy_wait<0>();
    }
    float factor[2];
    ND_UNROLL
    for (int half = 0; half < 2; half++) {
        sum[half] += __shfl_xor_sync(0xffffffffu, sum[half], 1);
        sum[half] += __shfl_xor_sync(0xffffffffu, sum[half], 2);
        factor[half] = sum[half] > 0.0f ? 1.0f / sum[half] : 0.0f;
        const int64_t row = first + 16 * warp + lane / 4 + 8 * half;
        if (lane % 4 == 0 && row < s.query_rows)
            nd_store_one(lse, row * s.heads + head,
                         sum[half] > 0.0f ? largest[half] * s.scale + logf(sum[half]) : 0.0f);
    }
    store_rows<D>(o + (int64_t)head * d, q_stride, first + 16 * warp, s.query_rows, d, acc,
                  factor[0], factor[1]);
}

template <int D>
__global__ void __launch_bounds__(THREADS)
    attention_dq_tensor_kernel(uint16_t *dq, const uint16_t *dout, const float *lse,
                               const float *delta, const uint16_t *q, const uint16_t *k,
                               const uint16_t *v, nd_attention_layout s)
{
    ND_DYNAMIC_SHARED(memory);
    __shared__ tile_places places;
    uint16_t *queries = reinterpret_cast<uint16_t *>(memory), *douts = queries + ROWS * D;
    uint16_t *stages = douts + ROWS * D;
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, d = s.head_dim;
    const int head = (int)blockIdx.y, kv_head = head / (s.heads / s.kv_heads);
    const int64_t first = (int64_t)(gridDim.x - 1 - blockIdx.x) * ROWS;
    const int64_t q_stride = (int64_t)s.heads * d, kv_stride = (int64_t)s.kv_heads * d;
    const int64_t q_at = first * q_stride + (int64_t)head * d;
    fetch<D, ROWS>(queries, q, q_at, q_stride, s.query_rows - first, d);
    fetch<D, ROWS>(douts, dout, q_at, q_stride, s.query_rows - first, d);
    nd_copy_commit();
    place_queries(&places, s, first);
    float acc[D / 8][4], total[2], pull[2];
    clear<D / 8>(acc);
    ND_UNROLL
    for (int half = 0; half < 2; half++) {
        const int64_t row = first + 16 * warp + lane / 4 + 8 * half;
        const bool there = row < s.query_rows;
        total[half] = there ? lse[row * s.heads + head] * LOG2_E : 0.0f;
        pull[half] = there ? delta[row * s.heads + head] : 0.0f;
    }
    nd_copy_wait<0>();
    __syncthreads();
    const float scale = s.scale * LOG2_E;
    const int end = last_sequence(&places);
    for (int sequence = places.sequence[0]; sequence >= 0 && sequence <= end; sequence++) {
        int most, least, sight[2];
        limits_of(&places, sequence, &most, &least);
        ND_UNROLL
        for (int half = 0; half < 2; half++) {
            const int r = 16 * warp + lane / 4 + 8 * half;
            sight[half] = places.sequence[r] == sequence ? places.visible[r] : 0;
        }
        const int64_t base = (int64_t)sequence * s.key_len * kv_stride + (int64_t)kv_head * d;
        const int tiles = (most + ROWS - 1) / ROWS;
        __syncthreads();
        if (tiles > 0) {
            fetch<D, ROWS>(stages, k, base, kv_stride, s.key_len, d);
            fetch<D, ROWS>(stages + ROWS * D, v, base, kv_stride, s.key_len, d);
        }
        nd_copy_commit();
        for (int tile = 0; tile < tiles; tile++) {
            const int key0 = tile * ROWS;
            uint16_t *keys = stages + tile % 2 * 2 * ROWS * D, *values = keys + ROWS * D;
            if (tile + 1 < tiles) {
                uint16_t *next = stages + (tile + 1) % 2 * 2 * ROWS * D;
                const int64_t at = base + (int64_t)(key0 + ROWS) * kv_stride;
                fetch<D, ROWS>(next, k, at, kv_stride, s.key_len - key0 - ROWS, d);
                fetch<D, ROWS>(next + ROWS * D, v, at, kv_stride, s.key_len - key0 - ROWS, d);
            }
            nd_copy_commit();
            nd_copy_wait<1>();
            __syncthreads();
            /* Half a tile at a time: with all of it the results would not fit the registers. */
            ND_NO_UNROLL
            for (int key = 0; key < ROWS; key += QUERY_TILE) {
                float p[QUERY_TILE / 8][4], dp[QUERY_TILE / 8][4];
                clear<QUERY_TILE / 8>(p);
                clear<QUERY_TILE / 8>(dp);
                ND_UNROLL_TWO
                for (int at = 0; at < D / 16; at++) {
                    uint32_t left[4], right[4];
                    load_left<D>(left, queries, 16 * warp, at);
                    ND_UNROLL
                    for (int j = 0; j < QUERY_TILE / 16; j++) {
                        load_right<D>(right, keys, key + 16 * j, at);
                        nd_mma_bf16(p[2 * j], left, right[0], right[1]);
                        nd_mma_bf16(p[2 * j + 1], left, right[2], right[3]);
                    }
                    load_left<D>(left, douts, 16 * warp, at);
                    ND_UNROLL
                    for (int j = 0; j < QUERY_TILE / 16; j++) {
                        load_right<D>(right, values, key + 16 * j, at);
                        nd_mma_bf16(dp[2 * j], left, right[0], right[1]);
                        nd_mma_bf16(dp[2 * j + 1], left, right[2], right[3]);
                    }
                }
                ND_UNROLL
                for (int j = 0; j < QUERY_TILE / 8; j++)
                    ND_UNROLL
                for (int e = 0; e < 4; e++) {
                    const int at = key0 + key + 8 * j + lane % 4 * 2 + e % 2;
                    const float weight = exp2f(p[j][e] * scale - total[e / 2]);
                    p[j][e] = at < sight[e / 2] ? weight * (dp[j][e] - pull[e / 2]) : 0.0f;
                }
                ND_UNROLL
                for (int j = 0; j < QUERY_TILE / 16; j++) {
                    uint32_t change[4];
                    as_left(change, p[2 * j], p[2 * j + 1]);
                    ND_UNROLL
                    for (int i = 0; i < D / 16; i++) {
                        uint32_t right[4];
                        load_right_transposed<D>(right, keys, key + 16 * j, i);
                        nd_mma_bf16(acc[2 * i], change, right[0], right[1]);
                        nd_mma_bf16(acc[2 * i + 1], change, right[2], right[3]);
                    }
                }
            }
            __syncthreads();
        }
        nd_copy_wait<0>();
    }
    store_rows<D>(dq + (int64_t)head * d, q_stride, first + 16 * warp, s.query_rows, d, acc,
                  s.scale, s.scale);
}

/* What a tile of queries brings beside its rows. */
struct query_tile {
    int sequence[QUERY_TILE], visible[QUERY_TILE];
    float total[QUERY_TILE], pull[QUERY_TILE];
};

template <int D>
__device__ __forceinline__ void fetch_queries(uint16_t *tile, query_tile *beside, const uint16_t *q,
                                              const uint16_t *dout, const float *lse,
                                              const float *delta, const nd_attention_layout &s,
                                              int64_t first, int64_t end, int head)
{
    const int64_t stride = (int64_t)s.heads * s.head_dim;
    const int64_t at = first * stride + (int64_t)head * s.head_dim;
    fetch<D, QUERY_TILE>(tile, q, at, stride, end - first, s.head_dim);
    fetch<D, QUERY_TILE>(tile + QUERY_TILE * D, dout, at, stride, end - first, s.head_dim);
    if (threadIdx.x < QUERY_TILE) {
        const int64_t row = first + threadIdx.x;
        const nd_query_place place = nd_query_of(s, row);
        const bool there = row < end && place.sequence >= 0;
        beside->sequence[threadIdx.x] = there ? place.sequence : -1;
        beside->visible[threadIdx.x] = place.visible;
        beside->total[threadIdx.x] = there ? lse[row * s.heads + head] * LOG2_E : 0.0f;
        beside->pull[threadIdx.x] = there ? delta[row * s.heads + head] : 0.0f;
    }
}

template <int D>
__global__ void __launch_bounds__(THREADS)
    attention_dkv_tensor_kernel(uint16_t *dk, uint16_t *dv, const uint16_t *dout, const float *lse,
                                const float *delta, const uint16_t *q, const uint16_t *k,
                                const uint16_t *v, nd_attention_layout s)
{
    ND_DYNAMIC_SHARED(memory);
    __shared__ query_tile beside[2];
    uint16_t *keys = reinterpret_cast<uint16_t *>(memory), *values = keys + ROWS * D;
    uint16_t *stages = values + ROWS * D; /* two of {queries, douts} */
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, d = s.head_dim;
    const int kv_head = (int)blockIdx.y, group = s.heads / s.kv_heads;
    const int64_t first = (int64_t)blockIdx.x * ROWS;
    const int64_t kv_stride = (int64_t)s.kv_heads * d;
    nd_key_place place[2];
    ND_UNROLL
    for (int half = 0; half < 2; half++)
        place[half] = nd_key_of(s, first + 16 * warp + lane / 4 + 8 * half);
    for (int i = (int)threadIdx.x; i < ROWS * (D / 8); i += THREADS) {
        const int row = i / (D / 8), piece = i % (D / 8);
        const nd_key_place key = nd_key_of(s, first + row);
        const bool inside = key.token >= 0 && piece * 8 < d;
        const int64_t at = inside ? key.token * kv_stride + (int64_t)kv_head * d + piece * 8 : 0;
        nd_copy_async(piece_of<D>(keys, row, piece), k + at, inside);
        nd_copy_async(piece_of<D>(values, row, piece), v + at, inside);
    }
    /* Queries that see some key of the tile: rows of padding come last. */
    int64_t begin = 0, end = 0, last = first + ROWS - 1;
    if (last >= s.key_rows)
        last = s.key_rows - 1;
    while (last >= first && nd_key_of(s, last).token < 0)
        last--;
    if (last >= first) {
        begin = nd_first_query(s, first, nd_key_of(s, first));
        end = nd_end_of_queries(s, last, nd_key_of(s, last));
    }
    float dk_sum[D / 8][4], dv_sum[D / 8][4];
    clear<D / 8>(dk_sum);
    clear<D / 8>(dv_sum);
    const float scale = s.scale * LOG2_E;
    const int tiles = end > begin ? (int)((end - begin + QUERY_TILE - 1) / QUERY_TILE) : 0;
    const int steps = tiles * group;
    if (steps > 0)
        fetch_queries<D>(stages, &beside[0], q, dout, lse, delta, s, begin, end, kv_head * group);
    nd_copy_commit();
    for (int step = 0; step < steps; step++) {
        uint16_t *queries = stages + step % 2 * 2 * QUERY_TILE * D;
        uint16_t *douts = queries + QUERY_TILE * D;
        const query_tile *with = &beside[step % 2];
        if (step + 1 < steps)
            fetch_queries<D>(stages + (step + 1) % 2 * 2 * QUERY_TILE * D, &beside[(step + 1) % 2],
                             q, dout, lse, delta, s,
                             begin + (int64_t)((step + 1) % tiles) * QUERY_TILE, end,
                             kv_head * group + (step + 1) / tiles);
        nd_copy_commit();
        nd_copy_wait<1>();
        __syncthreads();
        float p[QUERY_TILE / 8][4], dp[QUERY_TILE / 8][4];
        clear<QUERY_TILE / 8>(p);
        clear<QUERY_TILE / 8>(dp);
        ND_UNROLL_TWO
        for (int at = 0; at < D / 16; at++) {
            uint32_t left[4], right[4];
            load_left<D>(left, keys, 16 * warp, at);
            ND_UNROLL
            for (int j = 0; j < QUERY_TILE / 16; j++) {
                load_right<D>(right, queries, 16 * j, at);
                nd_mma_bf16(p[2 * j], left, right[0], right[1]);
                nd_mma_bf16(p[2 * j + 1], left, right[2], right[3]);
            }
            load_left<D>(left, values, 16 * warp, at);
            ND_UNROLL
            for (int j = 0; j < QUERY_TILE / 16; j++) {
                load_right<D>(right, douts, 16 * j, at);
                nd_mma_bf16(dp[2 * j], left, right[0], right[1]);
                nd_mma_bf16(dp[2 * j + 1], left, right[2], right[3]);
            }
        }
        ND_UNROLL
        for (int j = 0; j < QUERY_TILE / 8; j++)
            ND_UNROLL
        for (int e = 0; e < 4; e++) {
            const int column = 8 * j + lane % 4 * 2 + e % 2;
            const bool seen = with->sequence[column] == place[e / 2].sequence &&
                              place[e / 2].position < with->visible[column];
            const float weight = seen ? exp2f(p[j][e] * scale - with->total[column]) : 0.0f;
            dp[j][e] = seen ? weight * (dp[j][e] - with->pull[column]) : 0.0f;
            p[j][e] = weight;
        }
        ND_UNROLL
        for (int j = 0; j < QUERY_TILE / 16; j++) {
            uint32_t weights[4], change[4];
            as_left(weights, p[2 * j], p[2 * j + 1]);
            as_left(change, dp[2 * j], dp[2 * j + 1]);
            ND_UNROLL
            for (int i = 0; i < D / 16; i++) {
                uint32_t right[4];
                load_right_transposed<D>(right, douts, 16 * j, i);
                nd_mma_bf16(dv_sum[2 * i], weights, right[0], right[1]);
                nd_mma_bf16(dv_sum[2 * i + 1], weights, right[2], right[3]);
                load_right_transposed<D>(right, queries, 16 * j, i);
                nd_mma_bf16(dk_sum[2 * i], change, right[0], right[1]);
                nd_mma_bf16(dk_sum[2 * i + 1], change, right[2], right[3]);
            }
        }
        __syncthreads();
    }
    nd_copy_wait<0>();
    const int64_t row = first + 16 * warp;
    store_rows<D>(dk + (int64_t)kv_head * d, kv_stride, row, s.key_rows, d, dk_sum, s.scale,
                  s.scale);
    store_rows<D>(dv + (int64_t)kv_head * d, kv_stride, row, s.key_rows, d, dv_sum, 1.0f, 1.0f);
}

const uint16_t *elements(nd_cview v)
{
    return static_cast<const uint16_t *>(v.data);
}

uint16_t *elements(nd_view v)
{
    return static_cast<uint16_t *>(v.data);
}

template <typename F> nd_status allow(F kernel, size_t bytes)
{
    ND_CUDA_TRY(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes));
    return ND_OK;
}

template <int D>
nd_status forward(nd_cuda *cuda, nd_view o, nd_view lse, nd_cview q, nd_cview k, nd_cview v,
                  const nd_attention_layout *s)
{
    const size_t shared = (size_t)(5 * ROWS * D) * sizeof(uint16_t);
    const dim3 grid((unsigned)nd_ceil(s->query_rows, ROWS), (unsigned)s->heads);
    ND_TRY(allow(attention_forward_kernel<D>, shared));
    ND_CUDA_TRY(ND_LAUNCH(attention_forward_kernel<D>, grid, dim3(THREADS), shared, cuda->stream,
                          elements(o), nd_floats_of(lse), elements(q), elements(k), elements(v),
                          *s));
    return ND_OK;
}

template <int D>
nd_status backward(nd_cuda *cuda, nd_view dq, nd_view dk, nd_view dv, nd_cview dout, nd_cview lse,
                   nd_cview q, nd_cview k, nd_cview v, const float *delta,
                   const nd_attention_layout *s)
{
    const size_t dq_shared = (size_t)(6 * ROWS * D) * sizeof(uint16_t);
    const size_t dkv_shared = (size_t)((2 * ROWS + 4 * QUERY_TILE) * D) * sizeof(uint16_t);
    const float *totals = static_cast<const float *>(lse.data);
    ND_TRY(allow(attention_dq_tensor_kernel<D>, dq_shared));
    ND_TRY(allow(attention_dkv_tensor_kernel<D>, dkv_shared));
    if (s->query_rows > 0)
        ND_CUDA_TRY(ND_LAUNCH(attention_dq_tensor_kernel<D>,
                              dim3((unsigned)nd_ceil(s->query_rows, ROWS), (unsigned)s->heads),
                              dim3(THREADS), dq_shared, cuda->stream, elements(dq), elements(dout),
                              totals, delta, elements(q), elements(k), elements(v), *s));
    ND_CUDA_TRY(ND_LAUNCH(attention_dkv_tensor_kernel<D>,
                          dim3((unsigned)nd_ceil(s->key_rows, ROWS), (unsigned)s->kv_heads),
                          dim3(THREADS), dkv_shared, cuda->stream, elements(dk), elements(dv),
                          elements(dout), totals, delta, elements(q), elements(k), elements(v),
                          *s));
    return ND_OK;
}

} // namespace

nd_status nd_cuda_attention_tensor(nd_cuda *cuda, nd_view o, nd_view lse, nd_cview q, nd_cview k,
                                   nd_cview v, const nd_attention_layout *s)
{
    if (s->head_dim <= 64)
        return forward<64>(cuda, o, lse, q, k, v, s);
    return forward<128>(cuda, o, lse, q, k, v, s);
}

nd_status nd_cuda_attention_backward_tensor(nd_cuda *cuda, nd_view dq, nd_view dk, nd_view dv,
                                            nd_cview dout, nd_cview lse, nd_cview q, nd_cview k,
                                            nd_cview v, const float *delta,
                                            const nd_attention_layout *s)
{
    if (s->head_dim <= 64)
        return backward<64>(cuda, dq, dk, dv, dout, lse, q, k, v, delta, s);
    return backward<128>(cuda, dq, dk, dv, dout, lse, q, k, v, delta, s);
}
