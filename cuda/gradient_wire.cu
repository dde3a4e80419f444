/* One warp per block of values that share a scale. Products and sums are rounded separately, as on
 * the host: a fused multiply-add would give other residuals. */
#include "floats.cuh"

extern "C" {
#include "core/config/config.h"
}

#include "gradient_wire.h"

namespace
{

/* As in dist/reduction/gradient_wire.c: values per block of int8, and of a residual for bf16. */
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

struct part_list {
    nd_gradient_part parts[ND_GRADIENT_PARTS];
};

template <bool NARROW> __device__ __forceinline__ void encode(const nd_gradient_part &part)
{
    unsigned char *const wire = static_cast<unsigned char *>(part.wire);
    unsigned char *const residual = static_cast<unsigned char *>(part.residual);
    const float *const values = part.values;
    const int64_t count = part.count;
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

/* Part y of the list. */
__global__ void encode_kernel(part_list list)
{
    const nd_gradient_part part = list.parts[blockIdx.y];
    if (part.format == ND_GRADIENT_WIRE_BF16)
        encode<true>(part);
    else
        encode<false>(part);
}

__device__ __forceinline__ float decoded(const nd_gradient_part &part, int64_t i)
{
    if (part.format == ND_GRADIENT_WIRE_FP32)
        return static_cast<const float *>(part.wire)[i];
    if (part.format == ND_GRADIENT_WIRE_BF16)
        return nd_float_of_bf16(static_cast<const uint16_t *>(part.wire)[i]);
    const unsigned char *block = static_cast<const unsigned char *>(part.wire) +
                                 i / INT8_VALUES * (INT8_VALUES + SCALE_BYTES);
    return nd_product((float)(int8_t)block[SCALE_BYTES + i % INT8_VALUES],
                      *reinterpret_cast<const float *>(block));
}

__global__ void add_kernel(part_list list)
{
    const nd_gradient_part part = list.parts[blockIdx.y];
    ND_GRID_LOOP(i, part.count)
        part.values[i] += decoded(part, i);
}

part_list listed(const nd_gradient_part *parts, int count, int64_t *longest)
{
    part_list list = {};
    *longest = 0;
    for (int i = 0; i < count; i++) {
        list.parts[i] = parts[i];
        *longest = parts[i].count > *longest ? parts[i].count : *longest;
    }
    return list;
}

} // namespace

extern "C" nd_status nd_cuda_gradient_encode(void *stream, const nd_gradient_part *parts, int count)
{
    int64_t longest;
    const part_list list = listed(parts, count, &longest);
    const unsigned blocks = (unsigned)nd_ceil(nd_ceil(longest, BF16_VALUES), WARPS);
    if (longest > 0)
        ND_CUDA_TRY(ND_LAUNCH(encode_kernel, dim3(blocks, (unsigned)count), dim3(WARPS * 32), 0,
                              static_cast<cudaStream_t>(stream), list));
    return ND_OK;
}

extern "C" nd_status nd_cuda_gradient_add(void *stream, const nd_gradient_part *parts, int count)
{
    int64_t longest;
    const part_list list = listed(parts, count, &longest);
    if (longest > 0)
        ND_CUDA_TRY(ND_LAUNCH(
            add_kernel, dim3(nd_blocks_for(longest, 256, nd_ceil(4096, count)), (unsigned)count),
            dim3(256), 0, static_cast<cudaStream_t>(stream), list));
    return ND_OK;
}
