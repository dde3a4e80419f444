/* Tensor-core operands of any type in shared memory: a block of 256 threads computes a tile of 128
 * x 128, and slices of 64 bytes of the rows of both operands are loaded several at a time. A row of
 * a slice consists of four pieces of 16 bytes, permuted by row so that reading eight rows at once
 * causes no bank conflicts. */
#pragma once

#include "context.cuh"

enum {
    ND_TILE_ROWS = 128,
    ND_TILE_SLICE = 64, /* bytes */
    ND_TILE_STAGES = 4,
    ND_TILE_THREADS = 256,
    ND_TILE_BYTES = ND_TILE_ROWS * ND_TILE_SLICE, /* of one operand's slice */
    ND_WARP_ROWS = 64,                            /* of a warp's part of the tile; 2 x 4 warps */
    ND_WARP_COLUMNS = 32
};

__device__ __forceinline__ int8_t *nd_tile_piece(int8_t *tile, int row, int piece)
{
    return tile + row * ND_TILE_SLICE + ((piece ^ (row / 2 % 4)) * 16);
}

/* Loads rows first .. first + 127 of x, whose rows have `width` bytes: bytes at .. at + 63 of each,
 * zeros outside. `aligned`: x and width are multiples of 16; the copy is then asynchronous. */
__device__ __forceinline__ void nd_tile_fetch(int8_t *tile, const int8_t *x, int first, int rows,
                                              int at, int width, bool aligned)
{
    for (int i = (int)threadIdx.x; i < ND_TILE_ROWS * 4; i += ND_TILE_THREADS) {
        const int row = i / 4, piece = i % 4;
        const int column = at + piece * 16;
        const bool inside = first + row < rows && column < width;
        int8_t *to = nd_tile_piece(tile, row, piece);
        const int8_t *from = inside ? x + (int64_t)(first + row) * width + column : x;
        if (aligned) {
            nd_copy_async(to, from, inside);
            continue;
        }
        for (int j = 0; j < 16; j++)
            to[j] = inside && column + j < width ? from[j] : (int8_t)0;
    }
}

/* Software pipeline over slices: fetch(stage, slice) starts copying a slice of both operands to
 * `stage`, multiply(stage, slice) uses it. `stages`: shared memory of nd_tile_shared bytes. */
static const size_t nd_tile_shared = (size_t)ND_TILE_STAGES * 2 * ND_TILE_BYTES;

template <typename Fetch, typename Multiply>
__device__ __forceinline__ void nd_tile_pipeline(int8_t *stages, int slices, Fetch fetch,
                                                 Multiply multiply)
{
    for (int slice = 0; slice < ND_TILE_STAGES - 1; slice++) {
        if (slice < slices)
            fetch(stages + slice * 2 * ND_TILE_BYTES, slice);
        nd_copy_commit();
    }
    for (int slice = 0; slice < slices; slice++) {
        nd_copy_wait<ND_TILE_STAGES - 2>();
        __syncthreads(); /* this slice has arrived, and all threads have used the one before it */
        const int ahead = slice + ND_TILE_STAGES - 1;
        if (ahead < slices)
            fetch(stages + ahead % ND_TILE_STAGES * 2 * ND_TILE_BYTES, ahead);
        nd_copy_commit();
        multiply(stages + slice % ND_TILE_STAGES * 2 * ND_TILE_BYTES, slice);
    }
    nd_copy_wait<0>();
}

/* A warp's operands from half `part` (32 bytes) of a slice: 16 x 32 bytes from each of four groups
 * of its rows, and 8 x 32 bytes (two words) from each of four groups of its columns. */
__device__ __forceinline__ void nd_tile_fragments(uint32_t x[4][4], uint32_t w[4][2], int8_t *left,
                                                  int8_t *right, int warp_row, int warp_column,
                                                  int part)
{
    const int lane = (int)threadIdx.x % 32;
    ND_UNROLL
    for (int i = 0; i < 4; i++) /* rows 0-7, 8-15 of the first 16 bytes, then of the others */
        nd_load_matrices(x[i],
                         nd_tile_piece(left, warp_row + 16 * i + lane % 16, 2 * part + lane / 16));
    ND_UNROLL
    for (int j = 0; j < 2; j++) { /* columns 0-7: both 16 bytes; columns 8-15 */
        uint32_t words[4];
        nd_load_matrices(words,
                         nd_tile_piece(right, warp_column + 16 * j + lane / 16 * 8 + lane % 8,
                                       2 * part + lane / 8 % 2));
        w[2 * j][0] = words[0], w[2 * j][1] = words[1];
        w[2 * j + 1][0] = words[2], w[2 * j + 1][1] = words[3];
    }
}
