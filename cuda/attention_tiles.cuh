/* Tiles of bf16 rows in shared memory and their tensor-core fragments.
 *
 * A row of a tile has D elements in pieces of 8 (16 bytes), permuted by row so that reading eight
 * rows at once causes no bank conflicts. Narrower heads are padded with zeros. */
#pragma once

#include "attention.cuh"

namespace
{

enum { ROWS = 64, THREADS = 128, QUERY_TILE = 32 /* and half a tile of keys */ };

#define LOG2_E 1.44269504088896f

template <int D> __device__ __forceinline__ uint16_t *piece_of(uint16_t *tile, int row, int piece)
{
    return tile + row * D + ((piece ^ (row & 7)) * 8);
}

/* Loads a fragment of 16 rows x 16 columns as the left operand: columns 16 at .. 16 at + 15. */
template <int D>
__device__ __forceinline__ void load_left(uint32_t out[4], uint16_t *tile, int row, int at)
{
    const int lane = (int)threadIdx.x % 32;
    nd_load_matrices(out, piece_of<D>(tile, row + lane % 16, 2 * at + lane / 16));
}

/* Loads the right operands of two 8-column products whose columns are rows `row` .. row+15 of the
 * tile and whose inner dimension is the tile's columns 16 at .. 16 at + 15: {b0, b1} of the first,
 * then of the second. */
template <int D>
__device__ __forceinline__ void load_right(uint32_t out[4], uint16_t *tile, int row, int at)
{
    const int lane = (int)threadIdx.x % 32;
    nd_load_matrices(out, piece_of<D>(tile, row + lane / 16 * 8 + lane % 8, 2 * at + lane / 8 % 2));
}

/* The same with the tile's rows as inner dimension and its columns from 16 at on as columns. */
template <int D>
__device__ __forceinline__ void load_right_transposed(uint32_t out[4], uint16_t *tile, int row,
                                                      int at)
{
    const int lane = (int)threadIdx.x % 32;
    nd_load_matrices_transposed(
        out, piece_of<D>(tile, row + lane / 8 % 2 * 8 + lane % 8, 2 * at + lane / 16));
}

/* Converts sums to a left operand: columns from 16 at on of 8-column results c. */
__device__ __forceinline__ void as_left(uint32_t out[4], const float low[4], const float high[4])
{
    out[0] = nd_pack_bf16(low[0], low[1]);
    out[1] = nd_pack_bf16(low[2], low[3]);
    out[2] = nd_pack_bf16(high[0], high[1]);
    out[3] = nd_pack_bf16(high[2], high[3]);
}

/* Starts copying COUNT rows of heads of d elements: row r from x + first + r * stride if r <
 * length, else zeros. */
template <int D, int COUNT>
__device__ __forceinline__ void fetch(uint16_t *tile, const uint16_t *x, int64_t first,
                                      int64_t stride, int64_t length, int d)
{
    for (int i = (int)threadIdx.x; i < COUNT * (D / 8); i += THREADS) {
        const int row = i / (D / 8), piece = i % (D / 8);
        const bool inside = row < length && piece * 8 < d;
        nd_copy_async(piece_of<D>(tile, row, piece),
                      inside ? x + first + row * stride + piece * 8 : x, inside);
    }
}

template <int N> __device__ __forceinline__ void clear(float x[N][4])
{
    ND_UNROLL
    for (int i = 0; i < N; i++)
        ND_UNROLL
    for (int e = 0; e < 4; e++)
        x[i][e] = 0.0f;
}

/* scores += a warp's 16 rows of `left` x N rows of `tile` from `row` on, transposed. */
template <int D, int N>
__device__ __forceinline__ void add_scores(float scores[N / 8][4], const uint32_t left[4],
                                           uint16_t *tile, int row, int at)
{
    ND_UNROLL
    for (int j = 0; j < N / 16; j++) {
        uint32_t right[4];
        load_right<D>(right, tile, row + 16 * j, at);
        nd_mma_bf16(scores[2 * j], left, right[0], right[1]);
        nd_mma_bf16(scores[2 * j + 1], left, right[2], right[3]);
    }
}

/* sums += `left`, 16 rows x 16, times rows `row` .. row+15 of `tile`. */
template <int D>
__device__ __forceinline__ void add_rows(float sums[D / 8][4], const uint32_t left[4],
                                         uint16_t *tile, int row)
{
    ND_UNROLL
    for (int i = 0; i < D / 16; i++) {
        uint32_t right[4];
        load_right_transposed<D>(right, tile, row, i);
        nd_mma_bf16(sums[2 * i], left, right[0], right[1]);
        nd_mma_bf16(sums[2 * i + 1], left, right[2], right[3]);
    }
}

/* Stores a warp's 16 x D results, rows r and r + 8 of this thread, times a factor each. */
template <int D>
__device__ __forceinline__ void store_rows(uint16_t *out, int64_t stride, int64_t row, int64_t rows,
                                           int d, const float acc[D / 8][4], float factor0,
                                           float factor1)
{
    const int lane = (int)threadIdx.x % 32;
    ND_UNROLL
    for (int half = 0; half < 2; half++) {
        const int64_t r = row + lane / 4 + 8 * half;
        if (r >= rows)
            continue;
        const float factor = half ? factor1 : factor0;
        ND_UNROLL
        for (int i = 0; i < D / 8; i++) {
            const int column = 8 * i + lane % 4 * 2;
            if (column < d)
                *reinterpret_cast<uint32_t *>(out + r * stride + column) =
                    nd_pack_bf16(acc[i][2 * half] * factor, acc[i][2 * half + 1] * factor);
        }
    }
}

/* The sequence of each row of a tile, and the number of keys it sees. */
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

/* The number of keys that any row of `sequence` sees, and that every row of the tile sees. */
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

/* The last sequence of the tile, -1 when it has none. The first is that of row 0. */
__device__ __forceinline__ int last_sequence(const tile_places *places)
{
    int last = -1;
    for (int r = 0; r < ROWS; r++)
        last = places->sequence[r] > last ? places->sequence[r] : last;
    return last;
}

/* The number of keys of `sequence` that this thread's two rows see. */
__device__ __forceinline__ void sight_of(const tile_places *places, int sequence, int sight[2])
{
    ND_UNROLL
    for (int half = 0; half < 2; half++) {
        const int r = (int)threadIdx.x / 32 * 16 + (int)threadIdx.x % 32 / 4 + 8 * half;
        sight[half] = places->sequence[r] == sequence ? places->visible[r] : 0;
    }
}

/* Starts loading a stage {keys, values} of a sequence and head from key `first` on. */
template <int D>
__device__ __forceinline__ void fetch_keys(uint16_t *stage, const uint16_t *k, const uint16_t *v,
                                           const nd_attention_layout &s, int64_t base, int first)
{
    const int64_t stride = (int64_t)s.kv_heads * s.head_dim, at = base + first * stride;
    fetch<D, ROWS>(stage, k, at, stride, s.key_len - first, s.head_dim);
    fetch<D, ROWS>(stage + ROWS * D, v, at, stride, s.key_len - first, s.head_dim);
}

/* Waits for the stage of tile `tile` and starts loading the next one. */
template <int D>
__device__ __forceinline__ uint16_t *next_keys(uint16_t *stages, int tile, int tiles,
                                               const uint16_t *k, const uint16_t *v,
                                               const nd_attention_layout &s, int64_t base)
{
    if (tile + 1 < tiles)
        fetch_keys<D>(stages + (tile + 1) % 2 * 2 * ROWS * D, k, v, s, base, (tile + 1) * ROWS);
    nd_copy_commit();
    nd_copy_wait<1>();
    __syncthreads();
    return stages + tile % 2 * 2 * ROWS * D;
}

inline const uint16_t *elements(nd_cview v)
{
    return static_cast<const uint16_t *>(v.data);
}

inline uint16_t *elements(nd_view v)
{
    return static_cast<uint16_t *>(v.data);
}

template <typename F> nd_status allow(F kernel, size_t bytes)
{
    return ND_CUDA(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes));
}

} // namespace
