/* Optimizer state in 8 bits by blocks and in 4 bits by tiles. Codes are computed in f32 as in the
 * reference, so that they are the same. */
#include "masters.cuh"

extern "C" {
#include "core/base/dynamic_code.h"
}

enum { BLOCK_THREADS = 128, TILE_THREADS = 256 };

__device__ const float nibble_levels[8] = {0.0476f, 0.1435f, 0.2420f, 0.3448f,
                                           0.4569f, 0.5847f, 0.7381f, 0.9406f};
__device__ const float nibble_limits[7] = {0.09555f, 0.19275f, 0.2934f, 0.40085f,
                                           0.5208f,  0.6614f,  0.83935f};

__device__ __forceinline__ float state_factor(float numerator, float scale)
{
    const bool usable = scale >= 0x1p-100f && scale <= 3.402823466e38f;
    return usable ? numerator / scale : 0.0f;
}

/* The largest magnitude of a block as bits, NaN above infinity. */
__device__ __forceinline__ float largest_magnitude(uint32_t bits, uint32_t *shared)
{
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    const int warps = (int)blockDim.x / 32;
    ND_UNROLL
    for (int offset = 16; offset > 0; offset >>= 1) {
        const uint32_t other = __shfl_xor_sync(0xffffffffu, bits, offset);
        bits = other > bits ? other : bits;
    }
    __syncthreads();
    if (lane == 0)
        shared[warp] = bits;
    __syncthreads();
    for (int i = 0; i < warps; i++)
        bits = shared[i] > bits ? shared[i] : bits;
    return nd_float_of(bits);
}

/* The number of limits below |scaled|, by bisection: `limits` ascend and end with infinity. */
__device__ __forceinline__ uint8_t nearest(const nd_dynamic_code *code, float x, float scaled)
{
    const float a = fabsf(scaled);
    int low = 0, high = code->count - 1;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (a > code->limits[middle])
            low = middle + 1;
        else
            high = middle;
    }
    const bool negative = code->has_sign && nd_bits_of(x) >> 31;
    return (uint8_t)(low | (negative ? ND_DYNAMIC_SIGN : 0));
}

__device__ __forceinline__ float decoded(const nd_dynamic_code *code, uint8_t q, float scale)
{
    const bool negative = code->has_sign && (q & ND_DYNAMIC_SIGN);
    const float magnitude = scale * code->values[negative ? q ^ ND_DYNAMIC_SIGN : q];
    return negative ? -magnitude : magnitude;
}

__device__ __forceinline__ float stored_scale(float largest)
{
    return largest < 0x1p-100f ? 0.0f : largest;
}

/* One CUDA block per block of state; code NULL is the linear code. */
__global__ void quantize_blocks_kernel(uint8_t *q, float *scales, const float *x, int64_t count,
                                       int64_t block, const nd_dynamic_code *code)
{
    __shared__ uint32_t shared[32];
    const int64_t first = (int64_t)blockIdx.x * block;
    const int64_t end = first + block < count ? first + block : count;
    uint32_t bits = 0;
    for (int64_t i = first + threadIdx.x; i < end; i += blockDim.x) {
        const uint32_t magnitude = nd_bits_of(x[i]) & 0x7fffffffu;
        bits = magnitude > bits ? magnitude : bits;
    }
    const float largest = largest_magnitude(bits, shared);
    const float factor = state_factor(code ? 1.0f : 127.0f, largest);
    if (threadIdx.x == 0)
        scales[blockIdx.x] = stored_scale(largest);
    for (int64_t i = first + threadIdx.x; i < end; i += blockDim.x) {
        const float scaled = x[i] * factor;
        if (code)
            q[i] = nearest(code, x[i], scaled);
        else
            q[i] = (uint8_t)(int8_t)(isnan(scaled) ? 0.0f : rintf(scaled));
    }
}

__global__ void dequantize_blocks_kernel(float *x, const uint8_t *q, const float *scales,
                                         int64_t count, int64_t block, const nd_dynamic_code *code)
{
    ND_GRID_LOOP(i, count) {
        const float scale = scales[i / block];
        x[i] = code ? decoded(code, q[i], scale) : (float)(int8_t)q[i] * (scale / 127.0f);
    }
}

/* Moments of a block stay in shared memory between update and encoding, one thread per element. */
__global__ void adamw_blocks_kernel(nd_floats w, uint8_t *m, float *m_scales, uint8_t *v,
                                    float *v_scales, nd_floats g, nd_adamw_rule_cuda rule,
                                    int64_t count, int64_t block, const nd_dynamic_code *codes)
{
    __shared__ float moment1[ND_ADAMW_BLOCK_MAX], moment2[ND_ADAMW_BLOCK_MAX];
    __shared__ uint32_t shared[32];
    const int64_t first = (int64_t)blockIdx.x * block;
    const int64_t end = first + block < count ? first + block : count;
    const float m_scale = m_scales[blockIdx.x], v_scale = v_scales[blockIdx.x];
    uint32_t m_bits = 0, v_bits = 0;
    for (int64_t i = first + (int64_t)threadIdx.x * 4; i < end; i += (int64_t)blockDim.x * 4) {
        const uint4 random = w.dtype == ND_BF16
                                 ? nd_philox(rule.key, 2, (uint64_t)((rule.first + i) / 4))
                                 : make_uint4(0, 0, 0, 0);
        const uint32_t words[4] = {random.x, random.y, random.z, random.w};
        ND_UNROLL
        for (int j = 0; j < 4; j++) {
            if (i + j >= end)
                continue;
            float first_moment = decoded(&codes[0], m[i + j], m_scale);
            float second_moment = decoded(&codes[1], v[i + j], v_scale);
            const float x = nd_adamw_element(rule, nd_load_one(w, i + j), &first_moment,
                                             &second_moment, nd_load_one(g, i + j));
            nd_store_one(w, i + j, w.dtype == ND_BF16 ? nd_round_stochastic(x, words[j]) : x);
            moment1[i - first + j] = first_moment;
            moment2[i - first + j] = second_moment;
            const uint32_t m_one = nd_bits_of(first_moment) & 0x7fffffffu;
            const uint32_t v_one = nd_bits_of(second_moment) & 0x7fffffffu;
            m_bits = m_one > m_bits ? m_one : m_bits;
            v_bits = v_one > v_bits ? v_one : v_bits;
        }
    }
    const float m_largest = largest_magnitude(m_bits, shared);
    const float v_largest = largest_magnitude(v_bits, shared);
    const float m_factor = state_factor(1.0f, m_largest), v_factor = state_factor(1.0f, v_largest);
    if (threadIdx.x == 0) {
        m_scales[blockIdx.x] = stored_scale(m_largest);
        v_scales[blockIdx.x] = stored_scale(v_largest);
    }
    for (int64_t i = threadIdx.x; i < end - first; i += blockDim.x) {
        m[first + i] = nearest(&codes[0], moment1[i], moment1[i] * m_factor);
        v[first + i] = nearest(&codes[1], moment2[i], moment2[i] * v_factor);
    }
}

/* One CUDA block per tile. */
__global__ void quantize_tiles_kernel(uint8_t *codes, uint16_t *row_max, uint16_t *column_max,
                                      const float *x, int64_t rows, int64_t cols)
{
    __shared__ float in_row[ND_TILE], in_column[ND_TILE];
    const int64_t row0 = (int64_t)blockIdx.y * ND_TILE, column0 = (int64_t)blockIdx.x * ND_TILE;
    const int height = (int)(rows - row0 < ND_TILE ? rows - row0 : (int64_t)ND_TILE);
    const int width = (int)(cols - column0 < ND_TILE ? cols - column0 : (int64_t)ND_TILE);
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    for (int i = warp; i < height; i += TILE_THREADS / 32) {
        float largest = 0.0f;
        for (int j = lane; j < width; j += 32)
            largest = fmaxf(largest, fabsf(x[(row0 + i) * cols + column0 + j]));
        largest = nd_warp_max(largest);
        if (lane == 0) {
            const uint16_t rounded = nd_bf16_of(largest);
            row_max[(row0 + i) * ((cols + ND_TILE - 1) / ND_TILE) + blockIdx.x] = rounded;
            in_row[i] = nd_float_of_bf16(rounded);
        }
    }
    for (int j = (int)threadIdx.x; j < width; j += TILE_THREADS) {
        float largest = 0.0f;
        for (int i = 0; i < height; i++)
            largest = fmaxf(largest, fabsf(x[(row0 + i) * cols + column0 + j]));
        const uint16_t rounded = nd_bf16_of(largest);
        column_max[(int64_t)blockIdx.y * cols + column0 + j] = rounded;
        in_column[j] = nd_float_of_bf16(rounded);
    }
    __syncthreads();
    const int64_t stride = (cols + 1) / 2;
    for (int at = (int)threadIdx.x; at < height * (ND_TILE / 2); at += TILE_THREADS) {
        const int i = at / (ND_TILE / 2), byte = at % (ND_TILE / 2);
        if (2 * byte >= width)
            continue;
        unsigned bits = 0;
        for (int half = 0; half < 2; half++) {
            const int j = 2 * byte + half;
            if (j >= width)
                break;
            const float value = x[(row0 + i) * cols + column0 + j];
            const float factor = state_factor(1.0f, fminf(in_row[i], in_column[j]));
            const float scaled = fabsf(value * factor);
            unsigned code = nd_bits_of(value) >> 31 ? 8u : 0u;
            ND_UNROLL
            for (int k = 0; k < 7; k++)
                code += scaled > nibble_limits[k];
            bits |= code << (4 * half);
        }
        codes[(row0 + i) * stride + column0 / 2 + byte] = (uint8_t)bits;
    }
}

__global__ void dequantize_tiles_kernel(float *x, const uint8_t *codes, const uint16_t *row_max,
                                        const uint16_t *column_max, int64_t rows, int64_t cols,
                                        float beta)
{
    const int64_t stride = (cols + 1) / 2, tiles = (cols + ND_TILE - 1) / ND_TILE;
    ND_GRID_LOOP(at, rows * cols) {
        const int64_t i = at / cols, j = at % cols;
        const unsigned bits = codes[i * stride + j / 2] >> (j % 2 * 4) & 15u;
        const float level = nibble_levels[bits & 7u];
        const float scale = fminf(nd_float_of_bf16(row_max[i * tiles + j / ND_TILE]),
                                  nd_float_of_bf16(column_max[i / ND_TILE * cols + j]));
        const float value = scale * (bits & 8u ? -level : level);
        x[at] = (beta == 0.0f ? 0.0f : x[at]) + value;
    }
}

static const nd_dynamic_code *code_for(const nd_cuda *cuda, nd_block_code kind)
{
    const nd_dynamic_code *codes = static_cast<const nd_dynamic_code *>(cuda->dynamic_codes);
    return kind == ND_BLOCK_LINEAR ? NULL : kind == ND_BLOCK_DYNAMIC ? codes : codes + 1;
}

static nd_status quantize_blocks_cuda(nd_backend *b, const nd_blocks *q, nd_cview x)
{
    nd_cuda *cuda = nd_cuda_of(b);
    const int64_t count = nd_view_count(x);
    ND_REQUIRE(x.dtype == ND_F32 && nd_blocks_hold(q, count));
    if (count == 0)
        return ND_OK;
    return ND_CUDA(ND_LAUNCH(
        quantize_blocks_kernel, dim3((unsigned)nd_ceil(count, q->block)), dim3(BLOCK_THREADS), 0,
        cuda->stream, static_cast<uint8_t *>(q->codes.data), static_cast<float *>(q->scales.data),
        static_cast<const float *>(x.data), count, q->block, code_for(cuda, q->code)));
}

static nd_status dequantize_blocks_cuda(nd_backend *b, nd_view x, const nd_blocks *q)
{
    nd_cuda *cuda = nd_cuda_of(b);
    const int64_t count = nd_view_count(nd_as_const(x));
    ND_REQUIRE(x.dtype == ND_F32 && nd_blocks_hold(q, count));
    return ND_LAUNCH_EACH(dequantize_blocks_kernel, cuda, count, static_cast<float *>(x.data),
                          static_cast<const uint8_t *>(q->codes.data),
                          static_cast<const float *>(q->scales.data), count, q->block,
                          code_for(cuda, q->code));
}

static nd_status adamw_blocks_cuda(nd_backend *b, nd_view w, const nd_blocks *m, const nd_blocks *v,
                                   nd_cview g, const nd_adamw_params *p)
{
    nd_cuda *cuda = nd_cuda_of(b);
    const int64_t count = nd_view_count(g);
    ND_REQUIRE(nd_all_wide(w.dtype, g.dtype));
    ND_REQUIRE(nd_same_shape(nd_as_const(w), g) && nd_adamw_blocks_fit(m, v, count));
    if (count == 0)
        return ND_OK;
    return ND_CUDA(ND_LAUNCH(
        adamw_blocks_kernel, dim3((unsigned)nd_ceil(count, m->block)), dim3(BLOCK_THREADS), 0,
        cuda->stream, nd_floats_of(w), static_cast<uint8_t *>(m->codes.data),
        static_cast<float *>(m->scales.data), static_cast<uint8_t *>(v->codes.data),
        static_cast<float *>(v->scales.data), nd_floats_of(g), nd_adamw_rule_of(p), count, m->block,
        static_cast<const nd_dynamic_code *>(cuda->dynamic_codes)));
}

static nd_status quantize_tiles_cuda(nd_backend *b, const nd_tiles *q, nd_cview x)
{
    nd_cuda *cuda = nd_cuda_of(b);
    const int64_t down = nd_ceil(x.rows, ND_TILE);
    ND_REQUIRE(x.dtype == ND_F32 && nd_tiles_hold(q, x) && down <= 65535);
    if (nd_view_count(x) == 0)
        return ND_OK;
    return ND_CUDA(ND_LAUNCH(
        quantize_tiles_kernel, dim3((unsigned)nd_ceil(x.cols, ND_TILE), (unsigned)down),
        dim3(TILE_THREADS), 0, cuda->stream, static_cast<uint8_t *>(q->codes.data),
        static_cast<uint16_t *>(q->row_max.data), static_cast<uint16_t *>(q->column_max.data),
        static_cast<const float *>(x.data), x.rows, x.cols));
}

static nd_status dequantize_tiles_cuda(nd_backend *b, nd_view x, const nd_tiles *q, float beta)
{
    nd_cuda *cuda = nd_cuda_of(b);
    ND_REQUIRE(x.dtype == ND_F32 && nd_tiles_hold(q, nd_as_const(x)));
    if (x.rows * x.cols == 0)
        return ND_OK;
    return ND_LAUNCH_EACH(dequantize_tiles_kernel, cuda, x.rows * x.cols,
                          static_cast<float *>(x.data), static_cast<const uint8_t *>(q->codes.data),
                          static_cast<const uint16_t *>(q->row_max.data),
                          static_cast<const uint16_t *>(q->column_max.data), x.rows, x.cols, beta);
}

void nd_cuda_fill_state(nd_backend_ops *ops)
{
    ops->quantize_blocks = quantize_blocks_cuda;
    ops->dequantize_blocks = dequantize_blocks_cuda;
    ops->adamw_blocks = adamw_blocks_cuda;
    ops->quantize_tiles = quantize_tiles_cuda;
    ops->dequantize_tiles = dequantize_tiles_cuda;
}
