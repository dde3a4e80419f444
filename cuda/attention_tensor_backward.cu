/* The backward pass of attention_tensor.cu. A block holds 64 queries (dq) or 64 keys (dk and dv)
 * and loads the other side to shared memory. In separate kernels, each output has a fixed order. */
#include "attention_tiles.cuh"

namespace
{

/* Scores of this warp's 16 rows of two tiles with QUERY_TILE rows of two others, from `row` on. */
template <int D>
__device__ __forceinline__ void score_both(float p[QUERY_TILE / 8][4], float dp[QUERY_TILE / 8][4],
                                           uint16_t *left, uint16_t *dleft, uint16_t *right,
                                           uint16_t *dright, int row)
{
    const int warp = (int)threadIdx.x / 32;
    clear<QUERY_TILE / 8>(p);
    clear<QUERY_TILE / 8>(dp);
    ND_UNROLL_TWO
    for (int at = 0; at < D / 16; at++) {
        uint32_t rows[4];
        load_left<D>(rows, left, 16 * warp, at);
        add_scores<D, QUERY_TILE>(p, rows, right, row, at);
        load_left<D>(rows, dleft, 16 * warp, at);
        add_scores<D, QUERY_TILE>(dp, rows, dright, row, at);
    }
}

/* Scores p become their gradients; queries in rows, keys in columns from `key0` on. */
__device__ __forceinline__ void weigh_keys(float p[QUERY_TILE / 8][4],
                                           const float dp[QUERY_TILE / 8][4], const float total[2],
                                           const float pull[2], const int sight[2], int key0,
                                           float scale)
{
    ND_UNROLL
    for (int j = 0; j < QUERY_TILE / 8; j++)
        ND_UNROLL
    for (int e = 0; e < 4; e++) {
        const int at = key0 + 8 * j + (int)threadIdx.x % 4 * 2 + e % 2;
        const float weight = exp2f(p[j][e] * scale - total[e / 2]);
        p[j][e] = at < sight[e / 2] ? weight * (dp[j][e] - pull[e / 2]) : 0.0f;
    }
}

/* For this thread's two rows: lse in the base of exp2f, and delta. */
__device__ __forceinline__ void load_totals(float total[2], float pull[2], const float *lse,
                                            const float *delta, const nd_attention_layout &s,
                                            int64_t row, int head)
{
    ND_UNROLL
    for (int half = 0; half < 2; half++, row += 8) {
        const bool there = row < s.query_rows;
        total[half] = there ? lse[row * s.heads + head] * LOG2_E : 0.0f;
        pull[half] = there ? delta[row * s.heads + head] : 0.0f;
    }
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
    load_totals(total, pull, lse, delta, s, first + 16 * warp + lane / 4, head);
    nd_copy_wait<0>();
    __syncthreads();
    const float scale = s.scale * LOG2_E;
    const int end = last_sequence(&places);
    for (int sequence = places.sequence[0]; sequence >= 0 && sequence <= end; sequence++) {
        int most, least, sight[2];
        limits_of(&places, sequence, &most, &least);
        sight_of(&places, sequence, sight);
        const int64_t base = (int64_t)sequence * s.key_len * kv_stride + (int64_t)kv_head * d;
        const int tiles = (most + ROWS - 1) / ROWS;
        __syncthreads();
        if (tiles > 0)
            fetch_keys<D>(stages, k, v, s, base, 0);
        nd_copy_commit();
        for (int tile = 0; tile < tiles; tile++) {
            const int key0 = tile * ROWS;
            uint16_t *keys = next_keys<D>(stages, tile, tiles, k, v, s, base);
            uint16_t *values = keys + ROWS * D;
            /* Half a tile at a time: the results of a whole one would not fit the registers. */
            ND_NO_UNROLL
            for (int key = 0; key < ROWS; key += QUERY_TILE) {
                float p[QUERY_TILE / 8][4], dp[QUERY_TILE / 8][4];
                score_both<D>(p, dp, queries, douts, keys, values, key);
                weigh_keys(p, dp, total, pull, sight, key0 + key, scale);
                ND_UNROLL
                for (int j = 0; j < QUERY_TILE / 16; j++) {
                    uint32_t change[4];
                    as_left(change, p[2 * j], p[2 * j + 1]);
                    add_rows<D>(acc, change, keys, key + 16 * j);
                }
            }
            __syncthreads();
        }
        nd_copy_wait<0>();
    }
    store_rows<D>(dq + (int64_t)head * d, q_stride, first + 16 * warp, s.query_rows, d, acc,
                  s.scale, s.scale);
}

/* The data of a tile of queries besides its rows. */
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

/* Loads the tile's rows of keys and values, at the positions of nd_key_of. */
template <int D>
__device__ __forceinline__ void fetch_key_rows(uint16_t *keys, uint16_t *values, const uint16_t *k,
                                               const uint16_t *v, const nd_attention_layout &s,
                                               int64_t first, int kv_head)
{
    const int d = s.head_dim;
    const int64_t kv_stride = (int64_t)s.kv_heads * d;
    for (int i = (int)threadIdx.x; i < ROWS * (D / 8); i += THREADS) {
        const int row = i / (D / 8), piece = i % (D / 8);
        const nd_key_place key = nd_key_of(s, first + row);
        const bool inside = key.token >= 0 && piece * 8 < d;
        const int64_t at = inside ? key.token * kv_stride + (int64_t)kv_head * d + piece * 8 : 0;
        nd_copy_async(piece_of<D>(keys, row, piece), k + at, inside);
        nd_copy_async(piece_of<D>(values, row, piece), v + at, inside);
    }
}

/* The queries that see some key of the tile; padding rows come last. */
__device__ __forceinline__ void queries_of_keys(const nd_attention_layout &s, int64_t first,
                                                int64_t *begin, int64_t *end)
{
    int64_t last = first + ROWS - 1;
    if (last >= s.key_rows)
        last = s.key_rows - 1;
    while (last >= first && nd_key_of(s, last).token < 0)
        last--;
    *begin = last >= first ? nd_first_query(s, first, nd_key_of(s, first)) : 0;
    *end = last >= first ? nd_end_of_queries(s, last, nd_key_of(s, last)) : 0;
}

/* Scores p become weights and dp gradients of scores; queries in columns, keys in rows. */
__device__ __forceinline__ void weigh_queries(float p[QUERY_TILE / 8][4],
                                              float dp[QUERY_TILE / 8][4], const query_tile *with,
                                              const nd_key_place place[2], float scale)
{
    const int lane = (int)threadIdx.x % 32;
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
    fetch_key_rows<D>(keys, values, k, v, s, first, kv_head);
    int64_t begin, end;
    queries_of_keys(s, first, &begin, &end);
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
        score_both<D>(p, dp, keys, values, queries, douts, 0);
        weigh_queries(p, dp, with, place, scale);
        ND_UNROLL
        for (int j = 0; j < QUERY_TILE / 16; j++) {
            uint32_t weights[4], change[4];
            as_left(weights, p[2 * j], p[2 * j + 1]);
            as_left(change, dp[2 * j], dp[2 * j + 1]);
            add_rows<D>(dv_sum, weights, douts, 16 * j);
            add_rows<D>(dk_sum, change, queries, 16 * j);
        }
        __syncthreads();
    }
    nd_copy_wait<0>();
    const int64_t row = first + 16 * warp;
    store_rows<D>(dk + (int64_t)kv_head * d, kv_stride, row, s.key_rows, d, dk_sum, s.scale,
                  s.scale);
    store_rows<D>(dv + (int64_t)kv_head * d, kv_stride, row, s.key_rows, d, dv_sum, 1.0f, 1.0f);
}

template <int D>
nd_status backward(nd_cuda *cuda, const nd_attention_gradients *g, const float *delta,
                   const nd_attention_layout *s)
{
    const size_t dq_shared = (size_t)(6 * ROWS * D) * sizeof(uint16_t);
    const size_t dkv_shared = (size_t)((2 * ROWS + 4 * QUERY_TILE) * D) * sizeof(uint16_t);
    const float *totals = static_cast<const float *>(g->lse.data);
    const uint16_t *dout = elements(g->dout), *q = elements(g->q), *k = elements(g->k),
                   *v = elements(g->v);
    ND_TRY(allow(attention_dq_tensor_kernel<D>, dq_shared));
    ND_TRY(allow(attention_dkv_tensor_kernel<D>, dkv_shared));
    if (s->query_rows > 0)
        ND_CUDA_TRY(ND_LAUNCH(attention_dq_tensor_kernel<D>,
                              dim3((unsigned)nd_ceil(s->query_rows, ROWS), (unsigned)s->heads),
                              dim3(THREADS), dq_shared, cuda->stream, elements(g->dq), dout, totals,
                              delta, q, k, v, *s));
    return ND_CUDA(ND_LAUNCH(attention_dkv_tensor_kernel<D>,
                             dim3((unsigned)nd_ceil(s->key_rows, ROWS), (unsigned)s->kv_heads),
                             dim3(THREADS), dkv_shared, cuda->stream, elements(g->dk),
                             elements(g->dv), dout, totals, delta, q, k, v, *s));
}

} // namespace

nd_status nd_cuda_attention_backward_tensor(nd_cuda *cuda, const nd_attention_gradients *g,
                                            const float *delta, const nd_attention_layout *s)
{
    if (s->head_dim <= 64)
        return backward<64>(cuda, g, delta, s);
    return backward<128>(cuda, g, delta, s);
}
