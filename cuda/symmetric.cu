/* c = alpha a bᵀ or alpha aᵀ b, + beta b + gamma I, in bf16 on tensor cores. Only tiles on and
 * right of the diagonal are computed; they are stored twice, so c is exactly symmetric. */
#include "floats.cuh"

#include "tensor_tiles.cuh"

enum {
    DEPTH = ND_TILE_SLICE / 2 /* values in a slice */,
    COLUMN_PIECES = ND_TILE_ROWS / 8,
    MIRROR_TILE = 16
};

/* A slice across the rows of a: DEPTH rows of 128 values, 16 pieces each. */
__device__ __forceinline__ int8_t *across_piece(int8_t *tile, int row, int piece)
{
    return tile + row * ND_TILE_ROWS * 2 + ((piece ^ row % 8) * 16);
}

/* Rows at .. at + 31 of a [k, n], columns first .. first + 127, else zeros; n a multiple of 8. */
__device__ __forceinline__ void fetch_across(int8_t *tile, const uint16_t *a, int first, int n,
                                             int at, int k)
{
    for (int i = (int)threadIdx.x; i < DEPTH * COLUMN_PIECES; i += ND_TILE_THREADS) {
        const int row = i / COLUMN_PIECES, piece = i % COLUMN_PIECES;
        const int column = first + piece * 8;
        const bool inside = at + row < k && column < n;
        nd_copy_async(across_piece(tile, row, piece),
                      inside ? a + (int64_t)(at + row) * n + column : a, inside);
    }
}

/* nd_tile_fragments for operands stored across. */
__device__ __forceinline__ void across_fragments(uint32_t x[4][4], uint32_t w[4][2], int8_t *left,
                                                 int8_t *right, int warp_row, int warp_column,
                                                 int part)
{
    const int lane = (int)threadIdx.x % 32;
    ND_UNROLL
    for (int i = 0; i < 4; i++) /* rows 0-7, 8-15 of the first eight deep, then of the others */
        nd_load_matrices_transposed(x[i], across_piece(left, 16 * part + lane / 16 * 8 + lane % 8,
                                                       (warp_row + 16 * i) / 8 + lane / 8 % 2));
    ND_UNROLL
    for (int j = 0; j < 2; j++) {
        uint32_t words[4];
        nd_load_matrices_transposed(words,
                                    across_piece(right, 16 * part + lane / 8 % 2 * 8 + lane % 8,
                                                 (warp_column + 16 * j) / 8 + lane / 16));
        w[2 * j][0] = words[0], w[2 * j][1] = words[1];
        w[2 * j + 1][0] = words[2], w[2 * j + 1][1] = words[3];
    }
}

/* The terms added to alpha times the product. */
struct addends {
    nd_floats b;
    float beta, gamma;
};

__device__ __forceinline__ float added(const addends &a, int64_t row, int64_t column, int64_t n)
{
    return (a.beta == 0.0f ? 0.0f : a.beta * nd_load_one(a.b, row * n + column)) +
           (row == column ? a.gamma : 0.0f);
}

/* a and b: [n, k], or [k, n] if ACROSS. Blocks enumerate tiles by row, from the diagonal on. */
template <bool ACROSS>
__global__ void __launch_bounds__(ND_TILE_THREADS, 2)
    symmetric_kernel(nd_floats c, const uint16_t *a, const uint16_t *b, int n, int k, int tiles,
                     float alpha, addends more)
{
    ND_DYNAMIC_SHARED(memory);
    int8_t *stages = reinterpret_cast<int8_t *>(memory);
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    const int warp_row = warp / 4 * ND_WARP_ROWS, warp_column = warp % 4 * ND_WARP_COLUMNS;
    int down = 0, across = (int)blockIdx.x;
    for (; across >= tiles - down; down++)
        across -= tiles - down;
    across += down;
    const int row0 = down * ND_TILE_ROWS, column0 = across * ND_TILE_ROWS;
    const int8_t *left_bytes = reinterpret_cast<const int8_t *>(a);
    const int8_t *right_bytes = reinterpret_cast<const int8_t *>(b);
    float sums[4][4][4];
    ND_UNROLL
    for (int i = 0; i < 64; i++)
        sums[i / 16][i / 4 % 4][i % 4] = 0.0f;
    const auto fetch = [&](int8_t *stage, int slice) {
        const int at = slice * DEPTH;
        if (ACROSS) {
            fetch_across(stage, a, row0, n, at, k);
            fetch_across(stage + ND_TILE_BYTES, b, column0, n, at, k);
        } else {
            nd_tile_fetch(stage, left_bytes, row0, n, 2 * at, 2 * k, true);
            nd_tile_fetch(stage + ND_TILE_BYTES, right_bytes, column0, n, 2 * at, 2 * k, true);
        }
    };
    const auto multiply = [&](int8_t *stage, int) {
        int8_t *right = stage + ND_TILE_BYTES;
        ND_UNROLL
        for (int part = 0; part < DEPTH / 16; part++) {
            uint32_t x[4][4], w[4][2];
            if (ACROSS)
                across_fragments(x, w, stage, right, warp_row, warp_column, part);
            else
                nd_tile_fragments(x, w, stage, right, warp_row, warp_column, part);
            ND_UNROLL
            for (int i = 0; i < 4; i++)
                ND_UNROLL
            for (int j = 0; j < 4; j++)
                nd_mma_bf16(sums[i][j], x[i], w[j][0], w[j][1]);
        }
    };
    nd_tile_pipeline(stages, (int)((k + DEPTH - 1) / DEPTH), fetch, multiply);
    ND_UNROLL
    for (int i = 0; i < 4; i++)
        ND_UNROLL
    for (int j = 0; j < 4; j++)
        ND_UNROLL
    for (int e = 0; e < 4; e++) {
        const int row = row0 + warp_row + 16 * i + lane / 4 + 8 * (e / 2);
        const int column = column0 + warp_column + 8 * j + lane % 4 * 2 + e % 2;
        if (row > column || column >= n)
            continue;
        const float value = alpha * sums[i][j][e] + added(more, row, column, n);
        nd_store_one(c, (int64_t)row * n + column, value);
        nd_store_one(c, (int64_t)column * n + row, value);
    }
}

template <bool ACROSS>
static nd_status launch(nd_cuda *cuda, nd_view c, nd_cview a, nd_cview b, float alpha, addends more)
{
    const int64_t tiles = nd_ceil(c.rows, ND_TILE_ROWS);
    ND_REQUIRE(tiles < 32768 && a.rows < INT32_MAX / 2 && a.cols < INT32_MAX / 2);
    ND_CUDA_TRY(cudaFuncSetAttribute(symmetric_kernel<ACROSS>,
                                     cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     (int)nd_tile_shared));
    return ND_CUDA(ND_LAUNCH(symmetric_kernel<ACROSS>, dim3((unsigned)(tiles * (tiles + 1) / 2)),
                             dim3(ND_TILE_THREADS), nd_tile_shared, cuda->stream, nd_floats_of(c),
                             static_cast<const uint16_t *>(a.data),
                             static_cast<const uint16_t *>(b.data), c.rows,
                             ACROSS ? a.rows : a.cols, tiles, alpha, more));
}

/* Completes c[i,j] of the upper half, and stores it at c[j,i], too. */
__global__ void mirror_kernel(nd_floats c, addends more, int64_t n)
{
    const int64_t row = (int64_t)blockIdx.y * MIRROR_TILE + threadIdx.y;
    const int64_t column = (int64_t)blockIdx.x * MIRROR_TILE + threadIdx.x;
    __shared__ float tile[MIRROR_TILE][MIRROR_TILE + 1];
    if (blockIdx.x < blockIdx.y)
        return;
    if (row <= column && column < n) {
        const float value = nd_load_one(c, row * n + column) + added(more, row, column, n);
        nd_store_one(c, row * n + column, value);
        tile[threadIdx.y][threadIdx.x] = value;
    }
    __syncthreads();
    const int64_t to_row = (int64_t)blockIdx.x * MIRROR_TILE + threadIdx.y;
    const int64_t to_column = (int64_t)blockIdx.y * MIRROR_TILE + threadIdx.x;
    if (to_row < n && to_row > to_column)
        nd_store_one(c, to_row * n + to_column, tile[threadIdx.x][threadIdx.y]);
}

/* For what tensor cores do not support: the whole product, then one half overwrites the other. */
static nd_status by_whole_product(nd_backend *b, nd_view c, nd_cview a, bool transpose_a,
                                  nd_cview bb, float alpha, addends more)
{
    nd_cuda *cuda = nd_cuda_of(b);
    ND_TRY(b->ops.gemm(b, c, a, transpose_a, bb, !transpose_a, alpha, 0.0f));
    const int64_t n = c.rows;
    const dim3 grid((unsigned)nd_ceil(n, MIRROR_TILE), (unsigned)nd_ceil(n, MIRROR_TILE));
    const dim3 block(MIRROR_TILE, MIRROR_TILE);
    if (n == 0)
        return ND_OK;
    ND_REQUIRE(grid.y <= 65535);
    return ND_CUDA(
        ND_LAUNCH(mirror_kernel, grid, block, 0, cuda->stream, nd_floats_of(c), more, n));
}

static nd_status gemm_symmetric_cuda(nd_backend *b, nd_view c, nd_cview a, bool transpose_a,
                                     nd_cview bb, float alpha, float beta, float gamma)
{
    ND_REQUIRE(nd_all_wide(c.dtype, a.dtype, bb.dtype));
    ND_REQUIRE((transpose_a ? a.cols : a.rows) == c.rows && c.rows == c.cols);
    ND_REQUIRE(nd_same_shape(a, bb) && (beta == 0.0f || a.rows == a.cols));
    const addends more = {nd_floats_of(bb), beta, gamma};
    if (a.dtype != ND_BF16 || bb.dtype != ND_BF16 || !nd_aligned(a.cols, a.data, bb.data) ||
        nd_view_count(a) == 0)
        return by_whole_product(b, c, a, transpose_a, bb, alpha, more);
    return transpose_a ? launch<true>(nd_cuda_of(b), c, a, bb, alpha, more)
                       : launch<false>(nd_cuda_of(b), c, a, bb, alpha, more);
}

void nd_cuda_fill_symmetric(nd_backend_ops *ops)
{
    ops->gemm_symmetric = gemm_symmetric_cuda;
}
