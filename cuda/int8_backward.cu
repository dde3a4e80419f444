/* Backward products with int8 gradients. Tensor cores need int8 rows along both operands, so codes
 * of weights, quantized activations and, for dw, the gradients' codes are transposed first.
 * Transposed rows are padded with zeros to whole slices. */
#include "columns.cuh"
#include "int8_product.cuh"

enum { TILE = 64, PADDED = TILE + 4, TURN_THREADS = 256, COLUMN_WARPS = 8 };

static int64_t whole_tiles(int64_t n)
{
    return nd_ceil(n, TILE) * TILE;
}

/* Magnitudes order as integers, NaN above infinity. */
__device__ __forceinline__ uint32_t magnitude(float x)
{
    return nd_bits_of(x) & 0x7fffffffu;
}

/* nd_state_factor(127, m): 0 if m is not finite or below 2^-100. */
__device__ __forceinline__ float code_factor(float m)
{
    return m >= 0x1p-100f && m <= 3.402823466e38f ? 127.0f / m : 0.0f;
}

/* Encodes x [rows, n] to codes [rows, stride], one block per row. */
__global__ void encode_rows_kernel(int8_t *codes, float *largest, nd_floats x, int64_t n,
                                   int64_t stride, bool wide)
{
    __shared__ uint32_t shared[32];
    const int64_t row = (int64_t)blockIdx.x, first = row * n;
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    const int64_t step = (int64_t)blockDim.x * ND_WIDE;
    uint32_t most = 0;
    for (int64_t i = (int64_t)threadIdx.x * ND_WIDE; i < n; i += step) {
        float value[ND_WIDE];
        nd_load_wide(x, first + i, n - i, wide, value);
        ND_UNROLL
        for (int j = 0; j < ND_WIDE; j++)
            most = magnitude(value[j]) > most ? magnitude(value[j]) : most;
    }
    ND_UNROLL
    for (int offset = 16; offset > 0; offset >>= 1) {
        const uint32_t other = __shfl_xor_sync(0xffffffffu, most, offset);
        most = other > most ? other : most;
    }
    if (lane == 0)
        shared[warp] = most;
    __syncthreads();
    for (int i = 0; i < (int)blockDim.x / 32; i++)
        most = shared[i] > most ? shared[i] : most;
    const float m = nd_float_of(most), factor = code_factor(m);
    if (threadIdx.x == 0)
        largest[row] = m;
    for (int64_t i = (int64_t)threadIdx.x * ND_WIDE; i < stride; i += step) {
        float value[ND_WIDE];
        int code[ND_WIDE];
        const bool inside = wide && i < n;
        nd_load_wide(x, first + i, n - i, inside, value);
        ND_UNROLL
        for (int j = 0; j < ND_WIDE; j++)
            code[j] = nd_quantized(value[j], factor);
        nd_store_codes(codes + row * stride + i, ND_WIDE, true, code);
    }
}

/* Stores the thread's part of a transposed tile: 16 consecutive bytes of one row. */
__device__ __forceinline__ void store_transposed(int8_t *y, int64_t rows, int64_t stride,
                                                 int64_t row0, int64_t column0,
                                                 const int8_t tile[TILE][PADDED])
{
    const int row = (int)threadIdx.x / 4, piece = (int)threadIdx.x % 4 * 16;
    uint32_t words[4] = {0, 0, 0, 0};
    if (row0 + row >= rows)
        return;
    ND_UNROLL
    for (int j = 0; j < 16; j++)
        words[j / 4] |= (uint32_t)(uint8_t)tile[piece + j][row] << (8 * (j % 4));
    *reinterpret_cast<uint4 *>(y + (row0 + row) * stride + column0 + piece) =
        make_uint4(words[0], words[1], words[2], words[3]);
}

/* y [cols, stride] = xᵀ, x [rows, cols]. */
__global__ void turn_kernel(int8_t *y, const int8_t *x, int64_t rows, int64_t cols, int64_t stride,
                            bool aligned)
{
    __shared__ __align__(16) int8_t tile[TILE][PADDED];
    const int64_t row0 = (int64_t)blockIdx.y * TILE, column0 = (int64_t)blockIdx.x * TILE;
    const int row = (int)threadIdx.x / 4, piece = (int)threadIdx.x % 4 * 16;
    const int64_t at = (row0 + row) * cols + column0 + piece;
    if (aligned && row0 + row < rows && column0 + piece < cols) { /* cols is a multiple of 16 */
        const uint4 all = *reinterpret_cast<const uint4 *>(x + at);
        uint32_t *to = reinterpret_cast<uint32_t *>(&tile[row][piece]);
        to[0] = all.x, to[1] = all.y, to[2] = all.z, to[3] = all.w;
    } else {
        for (int j = 0; j < 16; j++)
            tile[row][piece + j] =
                row0 + row < rows && column0 + piece + j < cols ? x[at + j] : (int8_t)0;
    }
    __syncthreads();
    store_transposed(y, cols, stride, column0, row0, tile);
}

/* Eight gradients of token t times a/127; 0 beyond the last output or token. */
__device__ __forceinline__ void scaled_gradients(float h[ND_WIDE], nd_floats dy, const float *a,
                                                 int64_t t, int64_t tokens, int64_t o,
                                                 int64_t outputs, bool wide)
{
    const bool inside = t < tokens && o < outputs;
    nd_load_wide(dy, t * outputs + o, inside ? outputs - o : 0, wide && inside, h);
    const float factor = inside ? a[t] / 127.0f : 0.0f;
    ND_UNROLL
    for (int j = 0; j < ND_WIDE; j++)
        h[j] = inside ? h[j] * factor : 0.0f;
}

/* largest [blocks, outputs]: maximum of each block of ND_INT8_TOKENS tokens. A lane has eight
 * outputs, a warp every COLUMN_WARPS-th token. */
__global__ void largest_columns_kernel(float *largest, nd_floats dy, const float *a, int64_t tokens,
                                       int64_t outputs, bool wide)
{
    __shared__ uint32_t shared[COLUMN_WARPS][32 * ND_WIDE];
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    const int64_t o = ((int64_t)blockIdx.x * 32 + lane) * ND_WIDE;
    const int64_t first = (int64_t)blockIdx.y * ND_INT8_TOKENS;
    const int64_t end = first + ND_INT8_TOKENS < tokens ? first + ND_INT8_TOKENS : tokens;
    uint32_t most[ND_WIDE] = {0, 0, 0, 0, 0, 0, 0, 0};
    for (int64_t t = first + warp; t < end; t += COLUMN_WARPS) {
        float h[ND_WIDE];
        scaled_gradients(h, dy, a, t, tokens, o, outputs, wide);
        ND_UNROLL
        for (int j = 0; j < ND_WIDE; j++)
            most[j] = magnitude(h[j]) > most[j] ? magnitude(h[j]) : most[j];
    }
    ND_UNROLL
    for (int j = 0; j < ND_WIDE; j++)
        shared[warp][j * 32 + lane] = most[j];
    __syncthreads();
    const int lanes = (int)threadIdx.x % 32, j = (int)threadIdx.x / 32;
    const int64_t mine = ((int64_t)blockIdx.x * 32 + lanes) * ND_WIDE + j;
    uint32_t all = 0;
    for (int i = 0; i < COLUMN_WARPS; i++)
        all = shared[i][j * 32 + lanes] > all ? shared[i][j * 32 + lanes] : all;
    if (mine < outputs)
        largest[(int64_t)blockIdx.y * outputs + mine] = nd_float_of(all);
}

/* codes [outputs, stride], transposed, of a tile of tokens and outputs. */
__global__ void encode_columns_kernel(int8_t *codes, const float *largest, nd_floats dy,
                                      const float *a, int64_t tokens, int64_t outputs,
                                      int64_t stride, bool wide)
{
    __shared__ __align__(16) int8_t tile[TILE][PADDED];
    const int64_t token0 = (int64_t)blockIdx.y * TILE, output0 = (int64_t)blockIdx.x * TILE;
    const int column = (int)threadIdx.x % 8 * ND_WIDE;
    const float *most = largest + token0 / ND_INT8_TOKENS * outputs;
    float factor[ND_WIDE];
    ND_UNROLL
    for (int j = 0; j < ND_WIDE; j++) {
        const int64_t o = output0 + column + j;
        factor[j] = o < outputs ? code_factor(most[o]) : 0.0f;
    }
    ND_UNROLL
    for (int pass = 0; pass < 2; pass++) {
        const int row = (int)threadIdx.x / 8 + pass * (TURN_THREADS / 8);
        float h[ND_WIDE];
        scaled_gradients(h, dy, a, token0 + row, tokens, output0 + column, outputs, wide);
        ND_UNROLL
        for (int j = 0; j < ND_WIDE; j++)
            tile[row][column + j] = (int8_t)nd_quantized(h[j], factor[j]);
    }
    __syncthreads();
    store_transposed(codes, outputs, stride, output0, token0, tile);
}

/* Both kernels above in one for bf16: a block has ND_INT8_TOKENS tokens and 32 outputs, whose
 * gradients are read once and kept in shared memory until their maxima are known. A thread has
 * eight outputs, four lanes share a token; groups of four tokens are padded against
 * bank conflicts. */
enum { HELD_OUTPUTS = 32, HELD_LANES = HELD_OUTPUTS / ND_WIDE, HELD_FOUR = 5 * HELD_OUTPUTS * 2 };
static const size_t held_bytes = (size_t)ND_INT8_TOKENS / 4 * HELD_FOUR;

__device__ __forceinline__ uint4 *held_piece(unsigned char *held, int token, int lane)
{
    return reinterpret_cast<uint4 *>(held + token / 4 * HELD_FOUR + token % 4 * (HELD_OUTPUTS * 2) +
                                     lane * 16);
}

/* The eight values of a piece times a token's a/127. */
__device__ __forceinline__ void scale_piece(float h[ND_WIDE], uint4 piece, float factor)
{
    const uint32_t words[4] = {piece.x, piece.y, piece.z, piece.w};
    ND_UNROLL
    for (int j = 0; j < 4; j++) {
        h[2 * j] = nd_float_of(words[j] << 16) * factor;
        h[2 * j + 1] = nd_float_of(words[j] & 0xffff0000u) * factor;
    }
}

/* Loads the block's gradients to `held` and finds the maximum of each of the thread's outputs. */
__device__ __forceinline__ void hold_columns(unsigned char *held, uint32_t most[ND_WIDE],
                                             const uint16_t *dy, const float *a, int64_t token0,
                                             int64_t tokens, int64_t o, int64_t outputs)
{
    const int lane = (int)threadIdx.x % HELD_LANES;
    ND_UNROLL_FOUR
    for (int pass = 0; pass < ND_INT8_TOKENS * HELD_LANES / TURN_THREADS; pass++) {
        const int token = pass * (TURN_THREADS / HELD_LANES) + (int)threadIdx.x / HELD_LANES;
        const int64_t t = token0 + token;
        const bool inside = t < tokens && o < outputs;
        const uint4 piece = inside ? *reinterpret_cast<const uint4 *>(dy + t * outputs + o)
                                   : make_uint4(0, 0, 0, 0);
        float h[ND_WIDE];
        *held_piece(held, token, lane) = piece;
        scale_piece(h, piece, inside ? a[t] / 127.0f : 0.0f);
        ND_UNROLL
        for (int j = 0; j < ND_WIDE; j++)
            most[j] = magnitude(h[j]) > most[j] ? magnitude(h[j]) : most[j];
    }
}

/* Shares the maxima among threads with the same outputs. */
__device__ __forceinline__ void share_largest(uint32_t most[ND_WIDE],
                                              uint32_t shared[TURN_THREADS / 32][HELD_OUTPUTS])
{
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    ND_UNROLL
    for (int j = 0; j < ND_WIDE; j++) {
        ND_UNROLL
        for (int offset = 16; offset >= HELD_LANES; offset >>= 1) {
            const uint32_t other = __shfl_xor_sync(0xffffffffu, most[j], offset);
            most[j] = other > most[j] ? other : most[j];
        }
        if (lane < HELD_LANES)
            shared[warp][lane * ND_WIDE + j] = most[j];
    }
    __syncthreads();
    for (int i = 0; i < TURN_THREADS / 32; i++)
        for (int j = 0; j < ND_WIDE; j++) {
            const uint32_t other = shared[i][lane % HELD_LANES * ND_WIDE + j];
            most[j] = other > most[j] ? other : most[j];
        }
}

__global__ void __launch_bounds__(TURN_THREADS)
    encode_held_columns_kernel(int8_t *codes, float *largest, const uint16_t *dy, const float *a,
                               int64_t tokens, int64_t outputs, int64_t stride)
{
    ND_DYNAMIC_SHARED(held);
    __shared__ uint32_t shared[TURN_THREADS / 32][HELD_OUTPUTS];
    const int lane = (int)threadIdx.x % HELD_LANES;
    const int64_t token0 = (int64_t)blockIdx.y * ND_INT8_TOKENS;
    /* all eight exist or none */
    const int64_t o = (int64_t)blockIdx.x * HELD_OUTPUTS + lane * ND_WIDE;
    uint32_t most[ND_WIDE] = {0, 0, 0, 0, 0, 0, 0, 0};
    hold_columns(held, most, dy, a, token0, tokens, o, outputs);
    share_largest(most, shared);
    if (o >= outputs)
        return;
    float factor[ND_WIDE];
    ND_UNROLL
    for (int j = 0; j < ND_WIDE; j++) {
        factor[j] = code_factor(nd_float_of(most[j]));
        if (threadIdx.x < HELD_LANES)
            largest[(int64_t)blockIdx.y * outputs + o + j] = nd_float_of(most[j]);
    }
    for (int first = (int)threadIdx.x / HELD_LANES * 4; first < ND_INT8_TOKENS;
         first += TURN_THREADS / HELD_LANES * 4) {
        uint32_t words[ND_WIDE] = {0, 0, 0, 0, 0, 0, 0, 0}; /* four tokens of each output */
        const int64_t t = token0 + first;
        if (t >= stride)
            return;
        ND_UNROLL
        for (int i = 0; i < 4; i++) {
            float h[ND_WIDE];
            scale_piece(h, *held_piece(held, first + i, lane),
                        t + i < tokens ? a[t + i] / 127.0f : 0.0f);
            ND_UNROLL
            for (int j = 0; j < ND_WIDE; j++)
                words[j] |= (uint32_t)(nd_quantized(h[j], factor[j]) & 0xff) << (8 * i);
        }
        ND_UNROLL
        for (int j = 0; j < ND_WIDE; j++)
            *reinterpret_cast<uint32_t *>(codes + (o + j) * stride + t) = words[j];
    }
}

/* codes [dy.cols, stride] and largest [blocks, dy.cols] of h = dy a/127. */
static nd_status encode_columns(nd_cuda *cuda, int8_t *codes, float *largest, nd_cview dy,
                                const float *a, int64_t stride)
{
    const bool wide = nd_aligned(dy.cols, dy.data);
    const int64_t blocks = nd_ceil(dy.rows, ND_INT8_TOKENS);
    ND_REQUIRE(blocks <= 65535 && stride / TILE <= 65535);
    if (wide && dy.dtype == ND_BF16) {
        ND_TRY(nd_cuda_allow_shared(cuda, encode_held_columns_kernel, held_bytes));
        return ND_CUDA(ND_LAUNCH(encode_held_columns_kernel,
                                 dim3((unsigned)nd_ceil(dy.cols, HELD_OUTPUTS), (unsigned)blocks),
                                 dim3(TURN_THREADS), held_bytes, cuda->stream, codes, largest,
                                 static_cast<const uint16_t *>(dy.data), a, dy.rows, dy.cols,
                                 stride));
    }
    ND_CUDA_TRY(ND_LAUNCH(largest_columns_kernel,
                          dim3((unsigned)nd_ceil(dy.cols, 32 * ND_WIDE), (unsigned)blocks),
                          dim3(32 * COLUMN_WARPS), 0, cuda->stream, largest, nd_floats_of(dy), a,
                          dy.rows, dy.cols, wide));
    return ND_CUDA(ND_LAUNCH(encode_columns_kernel,
                             dim3((unsigned)nd_ceil(dy.cols, TILE), (unsigned)(stride / TILE)),
                             dim3(TURN_THREADS), 0, cuda->stream, codes, largest, nd_floats_of(dy),
                             a, dy.rows, dy.cols, stride, wide));
}

static nd_status turn(nd_cuda *cuda, int8_t *y, nd_cview x, int64_t stride)
{
    const bool aligned = x.cols % 16 == 0 && (uintptr_t)x.data % 16 == 0;
    const dim3 grid((unsigned)nd_ceil(x.cols, TILE), (unsigned)nd_ceil(x.rows, TILE));
    ND_REQUIRE(grid.y <= 65535);
    return ND_CUDA(ND_LAUNCH(turn_kernel, grid, dim3(TURN_THREADS), 0, cuda->stream, y,
                             static_cast<const int8_t *>(x.data), x.rows, x.cols, stride, aligned));
}

static nd_status ternary_gemm_dx_int8_cuda(nd_backend *b, nd_view dx, nd_cview dy, nd_cview c,
                                           nd_cview s, float beta)
{
    nd_cuda *cuda = nd_cuda_of(b);
    ND_REQUIRE(nd_all_wide(dx.dtype, dy.dtype) && c.dtype == ND_I8);
    ND_REQUIRE(dx.rows == dy.rows && dx.cols == c.cols && dy.cols == c.rows);
    ND_REQUIRE(s.dtype == ND_F32 && s.rows == 1 && s.cols == 1 && (beta == 0.0f || beta == 1.0f));
    if (dx.rows * dx.cols == 0)
        return ND_OK;
    const int64_t stride = whole_tiles(dy.cols);
    const size_t code_bytes = nd_scratch_bytes(dy.rows * stride, 1);
    const size_t weight_bytes = nd_scratch_bytes(c.cols * stride, 1);
    const size_t scale_bytes = nd_scratch_bytes(dy.rows, sizeof(float));
    void *scratch;
    ND_TRY(nd_cuda_scratch(cuda,
                           code_bytes + weight_bytes + scale_bytes +
                               nd_cuda_int8_scratch(cuda, dx.rows, dx.cols),
                           &scratch));
    int8_t *codes = static_cast<int8_t *>(scratch), *weights = codes + code_bytes;
    float *largest = reinterpret_cast<float *>(weights + weight_bytes);
    ND_CUDA_TRY(ND_LAUNCH(encode_rows_kernel, dim3((unsigned)dy.rows),
                          dim3(nd_row_threads(dy.cols)), 0, cuda->stream, codes, largest,
                          nd_floats_of(dy), dy.cols, stride, nd_aligned(dy.cols, dy.data)));
    ND_TRY(turn(cuda, weights, c, stride));
    nd_int8_product product;
    memset(&product, 0, sizeof product);
    product.y = dx;
    product.left = codes;
    product.right = weights;
    product.k = stride;
    product.a = largest;
    product.s = static_cast<const float *>(s.data);
    product.add = beta != 0.0f;
    return nd_cuda_int8_scaled(b, &product, reinterpret_cast<char *>(largest) + scale_bytes);
}

static nd_status ternary_gemm_dw_int8_cuda(nd_backend *b, nd_view dw, nd_cview dy, nd_cview q,
                                           nd_cview a, float beta)
{
    nd_cuda *cuda = nd_cuda_of(b);
    ND_REQUIRE(dw.dtype == ND_F32 && nd_all_wide(dy.dtype) && q.dtype == ND_I8);
    ND_REQUIRE(a.dtype == ND_F32 && a.rows == q.rows && dy.rows == q.rows);
    ND_REQUIRE(dw.rows == dy.cols && dw.cols == q.cols && (beta == 0.0f || beta == 1.0f));
    if (dw.rows * dw.cols == 0)
        return ND_OK;
    if (q.rows == 0) /* without tokens only beta applies */
        return beta != 0.0f ? ND_OK : b->ops.zero(b, dw.data, nd_view_bytes(nd_as_const(dw)));
    const int64_t stride = whole_tiles(q.rows), blocks = nd_ceil(q.rows, ND_INT8_TOKENS);
    const size_t code_bytes = nd_scratch_bytes(dw.rows * stride, 1);
    const size_t token_bytes = nd_scratch_bytes(dw.cols * stride, 1);
    void *scratch;
    ND_TRY(nd_cuda_scratch(
        cuda, code_bytes + token_bytes + nd_scratch_bytes(blocks * dw.rows, sizeof(float)),
        &scratch));
    int8_t *codes = static_cast<int8_t *>(scratch), *turned = codes + code_bytes;
    float *largest = reinterpret_cast<float *>(turned + token_bytes);
    ND_TRY(encode_columns(cuda, codes, largest, dy, static_cast<const float *>(a.data), stride));
    ND_TRY(turn(cuda, turned, q, stride));
    nd_int8_product product;
    memset(&product, 0, sizeof product);
    product.y = dw;
    product.left = codes;
    product.right = turned;
    product.k = stride;
    product.s = largest;
    product.row_width = ND_INT8_TOKENS;
    product.add = beta != 0.0f;
    return nd_cuda_int8_product(b, &product);
}

void nd_cuda_fill_int8(nd_backend_ops *ops)
{
    ops->ternary_gemm_dx_int8 = ternary_gemm_dx_int8_cuda;
    ops->ternary_gemm_dw_int8 = ternary_gemm_dw_int8_cuda;
}
