/* Tiles of bf16 rows in shared memory and the tensor cores' fragments of them.
 *
 * A row of a tile is D elements in pieces of 8 (16 bytes), whose places are permuted by the row so that
 * eight rows read together meet no bank twice. Heads narrower than D are padded with zeros. */
#ifndef ND_CUDA_ATTENTION_TILES_CUH
#define ND_CUDA_ATTENTION_TILES_CUH

#include "attention.cuh"

namespace
{

enum { ROWS = 64, THREADS = 128, QUERY_TILE = 32 /* and half a tile of keys */ };

#define LOG2_E 1.44269504088896f

template <int D> __device__ __forceinline__ uint16_t *piece_of(uint16_t *tile, int row, int piece)
{
    return tile + row * D + ((piece ^ (row & 7)) * 8);
}

/* Fragment of 16 rows x 16 columns as the left operand: columns 16 at .. 16 at + 15. */
template <int D>
__device__ __forceinline__ void load_left(uint32_t out[4], uint16_t *tile, int row, int at)
{
    const int lane = (int)threadIdx.x % 32;
    nd_load_matrices(out, piece_of<D>(tile, row + lane % 16, 2 * at + lane / 16));
}

/* Right operands of two 8-column products whose columns are rows `row` .. row+15 of the tile and whose
 * inner dimension is the tile's columns 16 at .. 16 at + 15: {b0, b1} of the first, then the second. */
template <int D>
__device__ __forceinline__ void load_right(uint32_t out[4], uint16_t *tile, int row, int at)
{
    const int lane = (int)threadIdx.x % 32;
    nd_load_matrices(out, piece_of<D>(tile, row + lane / 16 * 8 + lane % 8, 2 * at + lane / 8 % 2));
}

/* The same with the tile's rows as the inner dimension and its columns 16 at .. as columns. */
template <int D>
__device__ __forceinline__ void load_right_transposed(uint32_t out[4], uint16_t *tile, int row,
                                                      int at)
{
    const int lane = (int)threadIdx.x % 32;
    nd_load_matrices_transposed(
        out, piece_of<D>(tile, row + lane / 8 % 2 * 8 + lane % 8, 2 * at + lane / 16));
}

/* Sums as a left operand: columns 16 at .. of 8-column results c. */
__device__ __forceinline__ void as_left(uint32_t out[4], const float low[4], const float high[4])
{
    out[0] = nd_pack_bf16(low[0], low[1]);
    out[1] = nd_pack_bf16(low[2], low[3]);
    out[2] = nd_pack_bf16(high[0], high[1]);
    out[3] = nd_pack_bf16(high[2], high[3]);
}

/* Starts copying COUNT rows of heads of d elements: row r of the tile from x + first + r * stride where
 * r < length, else zeros. */
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

} // namespace

#endif
