/* One warp per block of values that share a scale. Products and sums are rounded separately, as on
 * the host: a fused multiply-add would give other residuals. */
#include "floats.cuh"

extern "C" {
#include "core/config/config.h"
}

#include "gradient_wire.h"

namespace
{

/* As in dist/gradient_wire.c: values per block of int8, and of a residual for bf16. */
enum { WARPS = 4, SCALE_BYTES = 4, INT8_VALUES = 252, BF16_VALUES = 128 };

/* The largest magnitude in a warp as bits: infinity and NaN exceed all numbers. */
__device__ __forceinline__ uint32_t largest_in_warp(uint32_t bits)
{
    ND_UNROLL
    for (int offset = 16; offset > 0; offset >>= 1) {
        const uint32_t other = __shfl_xor_sync(0xffffffffu, bits, offset);
        bits = other > bits ? other : bits;
    }
    return bits;
}

__device__ __forceinline__ bool is_number(uint32_t magnitude)
{
    return magnitude < 0x7f800000u;
}

/* Writes x [n] as one scale and n codes, and replaces x by their decoded values. Below 2^-100 the
 * factor could overflow: such a block is encoded as zeros. */
template <int PARTS>
__device__ __forceinline__ void write_codes(unsigned char *block, float x[PARTS], uint32_t bits,
                                            int n)
{
    const int lane = (int)threadIdx.x % 32;
    const float largest = nd_float_of(bits);
    const bool plain = is_number(bits) && largest >= 0x1p-100f;
    const float scale = plain ? largest / 127.0f : is_number(bits) ? 0.0f : NAN;
    const float factor = plain ? 127.0f / largest : 0.0f;
    if (lane == 0)
        *reinterpret_cast<float *>(block) = scale;
    ND_UNROLL
    for (int i = 0; i < PARTS; i++) {
        const int j = lane + 32 * i;
        if (j >= n)
            continue;
        const int code = plain ? nd_quantized(x[i], factor) : 0;
        block[SCALE_BYTES + j] = (unsigned char)(int8_t)code;
        x[i] = nd_product((float)code, scale);
    }
}

template <bool NARROW>
__global__ void encode_kernel(unsigned char *wire, const float *values, unsigned char *residual,
                              int64_t count)
{
    enum { VALUES = NARROW ? BF16_VALUES : INT8_VALUES, PARTS = (VALUES + 31) / 32 };
    const int lane = (int)threadIdx.x % 32;
    const int64_t block = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32, first = block * VALUES;
    if (first >= count)
        return;
    const int n = count - first < VALUES ? (int)(count - first) : VALUES;
    unsigned char *kept = residual ? residual + block * (VALUES + SCALE_BYTES) : NULL;
    const float kept_scale = kept ? *reinterpret_cast<const float *>(kept) : 0.0f;
    float x[PARTS], sent[PARTS];
    uint32_t largest = 0, lost = 0;
    ND_UNROLL
    for (int i = 0; i < PARTS; i++) {
        const int j = lane + 32 * i;
        x[i] = j < n ? values[first + j] : 0.0f;
        if (kept && j < n)
            x[i] += nd_product((float)(int8_t)kept[SCALE_BYTES + j], kept_scale);
        sent[i] = x[i];
        const uint32_t bits = nd_bits_of(x[i]) & 0x7fffffffu;
        largest = bits > largest ? bits : largest;
    }
    if (NARROW) {
        uint16_t *to = reinterpret_cast<uint16_t *>(wire) + first;
        ND_UNROLL
        for (int i = 0; i < PARTS; i++) {
            const int j = lane + 32 * i;
            if (j >= n)
                continue;
            to[j] = nd_bf16_of(x[i]);
            sent[i] = nd_float_of_bf16(to[j]);
        }
    } else {
        write_codes<PARTS>(wire + block * (VALUES + SCALE_BYTES), sent, largest_in_warp(largest),
                           n);
    }
    if (!kept)
        return;
    ND_UNROLL
    for (int i = 0; i < PARTS; i++) {
        x[i] = lane + 32 * i < n ? x[i] - sent[i] : 0.0f;
        const uint32_t bits = nd_bits_of(x[i]) & 0x7fffffffu;
        lost = bits > lost ? bits : lost;
    }
    lost = largest_in_warp(lost);
    __syncwarp(); /* all lanes have read their residual's scale */
    if (is_number(lost))
        write_codes<PARTS>(kept, x, lost, n);
}

template <bool NARROW>
__global__ void add_kernel(float *into, const unsigned char *wire, int64_t count)
{
    ND_GRID_LOOP(i, count) {
        if (NARROW) {
            into[i] += nd_float_of_bf16(reinterpret_cast<const uint16_t *>(wire)[i]);
            continue;
        }
        const unsigned char *block = wire + i / INT8_VALUES * (INT8_VALUES + SCALE_BYTES);
        const float scale = *reinterpret_cast<const float *>(block);
        into[i] += nd_product((float)(int8_t)block[SCALE_BYTES + i % INT8_VALUES], scale);
    }
}

} // namespace

extern "C" nd_status nd_cuda_gradient_encode(void *stream, int format, void *wire,
                                             const float *values, void *residual, int64_t count)
{
    const bool narrow = format == ND_GRADIENT_WIRE_BF16;
    const int64_t blocks = nd_ceil(count, narrow ? BF16_VALUES : INT8_VALUES);
    const dim3 grid((unsigned)nd_ceil(blocks, WARPS)), threads(WARPS * 32);
    unsigned char *to = static_cast<unsigned char *>(wire);
    unsigned char *kept = static_cast<unsigned char *>(residual);
    if (count == 0)
        return ND_OK;
    if (narrow)
        ND_CUDA_TRY(ND_LAUNCH(encode_kernel<true>, grid, threads, 0,
                              static_cast<cudaStream_t>(stream), to, values, kept, count));
    else
        ND_CUDA_TRY(ND_LAUNCH(encode_kernel<false>, grid, threads, 0,
                              static_cast<cudaStream_t>(stream), to, values, kept, count));
    return ND_OK;
}

extern "C" nd_status nd_cuda_gradient_add(void *stream, int format, float *into, const void *wire,
                                          int64_t count)
{
    const dim3 grid(nd_blocks_for(count, 256, 4096)), threads(256);
    const unsigned char *from = static_cast<const unsigned char *>(wire);
    if (count == 0)
        return ND_OK;
    if (format == ND_GRADIENT_WIRE_BF16)
        ND_CUDA_TRY(ND_LAUNCH(add_kernel<true>, grid, threads, 0, static_cast<cudaStream_t>(stream),
                              into, from, count));
    else
        ND_CUDA_TRY(ND_LAUNCH(add_kernel<false>, grid, threads, 0,
                              static_cast<cudaStream_t>(stream), into, from, count));
    return ND_OK;
}
