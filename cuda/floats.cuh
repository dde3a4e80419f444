/* Loads and stores floats of any type as f32 in registers, eight at a time. */
#pragma once

#include "context.cuh"

enum { ND_WIDE = 8 }; /* elements of one access: 16 bytes of bf16 */

/* The status of launching a kernel in the compute stream over `count` elements, one or ND_WIDE per
 * iteration of its loop, in blocks of 256 threads; nothing is launched for none. */
#define ND_LAUNCH_EACH(kernel, cuda, count, ...)                                                   \
    ((count) > 0 ? ND_CUDA(ND_LAUNCH(kernel, dim3(nd_blocks_for((count), 256, 1 << 16)),           \
                                     dim3(256), 0, (cuda)->stream, __VA_ARGS__))                   \
                 : ND_OK)
#define ND_LAUNCH_WIDE(kernel, cuda, count, ...)                                                   \
    ND_LAUNCH_EACH(kernel, cuda, nd_ceil((count), ND_WIDE), __VA_ARGS__)

/* Memory and type of a view, for kernels. f64 is accessed element by element only. */
struct nd_floats {
    void *data;
    int dtype;
};

static inline nd_floats nd_floats_of(nd_view v)
{
    nd_floats f = {v.data, (int)v.dtype};
    return f;
}

static inline nd_floats nd_floats_of(nd_cview v)
{
    nd_floats f = {const_cast<void *>(v.data), (int)v.dtype};
    return f;
}

/* Whether all of these types are f32 or bf16. */
template <typename... Types> static inline bool nd_all_wide(Types... types)
{
    return ((types == ND_F32 || types == ND_BF16) && ...);
}

/* Whether rows of `n` elements at these addresses can be accessed 16 bytes at a time. */
template <typename... Pointers> static inline bool nd_aligned(int64_t n, Pointers... at)
{
    return n % ND_WIDE == 0 && ((uintptr_t)at | ...) % 16 == 0;
}

__device__ __forceinline__ float nd_load_one(nd_floats v, int64_t i)
{
    if (v.dtype == ND_F32)
        return static_cast<const float *>(v.data)[i];
    if (v.dtype == ND_BF16)
        return nd_float_of_bf16(static_cast<const uint16_t *>(v.data)[i]);
    return (float)static_cast<const double *>(v.data)[i];
}

__device__ __forceinline__ void nd_store_one(nd_floats v, int64_t i, float x)
{
    if (v.dtype == ND_F32)
        static_cast<float *>(v.data)[i] = x;
    else if (v.dtype == ND_BF16)
        static_cast<uint16_t *>(v.data)[i] = nd_bf16_of(x);
    else
        static_cast<double *>(v.data)[i] = (double)x;
}

/* Elements i .. i+7, of which `left` exist and the others are 0. `wide`: nd_aligned, all exist. */
__device__ __forceinline__ void nd_load_wide(nd_floats v, int64_t i, int64_t left, bool wide,
                                             float x[ND_WIDE])
{
    if (!wide) {
        ND_UNROLL
        for (int j = 0; j < ND_WIDE; j++)
            x[j] = j < left ? nd_load_one(v, i + j) : 0.0f;
    } else if (v.dtype == ND_F32) {
        const float4 *from =
            reinterpret_cast<const float4 *>(static_cast<const float *>(v.data) + i);
        const float4 low = from[0], high = from[1];
        x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
        x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
    } else {
        const uint4 all =
            *reinterpret_cast<const uint4 *>(static_cast<const uint16_t *>(v.data) + i);
        const uint32_t words[4] = {all.x, all.y, all.z, all.w};
        ND_UNROLL
        for (int j = 0; j < 4; j++) {
            x[2 * j] = nd_float_of(words[j] << 16);
            x[2 * j + 1] = nd_float_of(words[j] & 0xffff0000u);
        }
    }
}

__device__ __forceinline__ void nd_store_wide(nd_floats v, int64_t i, int64_t left, bool wide,
                                              const float x[ND_WIDE])
{
    if (!wide) {
        ND_UNROLL
        for (int j = 0; j < ND_WIDE; j++)
            if (j < left)
                nd_store_one(v, i + j, x[j]);
    } else if (v.dtype == ND_F32) {
        float4 *to = reinterpret_cast<float4 *>(static_cast<float *>(v.data) + i);
        to[0] = make_float4(x[0], x[1], x[2], x[3]);
        to[1] = make_float4(x[4], x[5], x[6], x[7]);
    } else {
        *reinterpret_cast<uint4 *>(static_cast<uint16_t *>(v.data) + i) =
            make_uint4(nd_pack_bf16(x[0], x[1]), nd_pack_bf16(x[2], x[3]), nd_pack_bf16(x[4], x[5]),
                       nd_pack_bf16(x[6], x[7]));
    }
}

__device__ __forceinline__ void nd_store_codes(int8_t *q, int64_t left, bool wide,
                                               const int code[ND_WIDE])
{
    if (!wide) {
        ND_UNROLL
        for (int j = 0; j < ND_WIDE; j++)
            if (j < left)
                q[j] = (int8_t)code[j];
        return;
    }
    uint32_t words[2] = {0, 0};
    ND_UNROLL
    for (int j = 0; j < ND_WIDE; j++)
        words[j / 4] |= (uint32_t)(code[j] & 0xff) << (8 * (j % 4));
    *reinterpret_cast<uint2 *>(q) = make_uint2(words[0], words[1]);
}

__device__ __forceinline__ void nd_load_codes(const int8_t *q, int64_t left, bool wide,
                                              int code[ND_WIDE])
{
    if (!wide) {
        ND_UNROLL
        for (int j = 0; j < ND_WIDE; j++)
            code[j] = j < left ? q[j] : 0;
        return;
    }
    const uint2 all = *reinterpret_cast<const uint2 *>(q);
    const uint32_t words[2] = {all.x, all.y};
    ND_UNROLL
    for (int j = 0; j < ND_WIDE; j++)
        code[j] = (int)(int8_t)(words[j / 4] >> (8 * (j % 4)));
}

/* q = clip(rint(127 x / a), -128, 127) with factor = 127 / a. */
__device__ __forceinline__ int nd_quantized(float x, float factor)
{
    if (factor == 0.0f)
        return 0;
    return (int)fminf(fmaxf(rintf(x * factor), -128.0f), 127.0f);
}

/* Reductions over a block of whole warps; every thread gets the result. */

template <typename T> __device__ __forceinline__ T nd_warp_sum(T x)
{
    ND_UNROLL
    for (int offset = 16; offset > 0; offset >>= 1)
        x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}

/* MAGNITUDES: for non-negative values, compared as bits, so that infinity and NaN exceed all
 * numbers. Otherwise NaN is ignored. */
template <bool MAGNITUDES> __device__ __forceinline__ float nd_larger(float a, float b)
{
    if (!MAGNITUDES)
        return fmaxf(a, b);
    return nd_bits_of(a) > nd_bits_of(b) ? a : b;
}

template <bool MAGNITUDES = false> __device__ __forceinline__ float nd_warp_max(float x)
{
    ND_UNROLL
    for (int offset = 16; offset > 0; offset >>= 1)
        x = nd_larger<MAGNITUDES>(x, __shfl_xor_sync(0xffffffffu, x, offset));
    return x;
}

/* Shows all threads a value of each warp; returns how many. `shared`: room for 32 values, for this
 * purpose only. */
template <typename T> __device__ __forceinline__ int nd_share_warps(T x, T *shared)
{
    __syncthreads(); /* the previous use of `shared` is over */
    if (threadIdx.x % 32 == 0)
        shared[threadIdx.x / 32] = x;
    __syncthreads();
    return (int)blockDim.x / 32;
}

template <typename T> __device__ __forceinline__ T nd_block_sum(T x, T *shared)
{
    const int warps = nd_share_warps(nd_warp_sum(x), shared);
    T sum = 0;
    for (int i = 0; i < warps; i++)
        sum += shared[i];
    return sum;
}

template <bool MAGNITUDES = false>
__device__ __forceinline__ float nd_block_max(float x, float *shared)
{
    const int warps = nd_share_warps(nd_warp_max<MAGNITUDES>(x), shared);
    float largest = shared[0];
    for (int i = 1; i < warps; i++)
        largest = nd_larger<MAGNITUDES>(largest, shared[i]);
    return largest;
}

/* The scale `a` of a row's codes (op quantize_rows) from each thread's largest magnitude, and the
 * factor by which its values are multiplied. */
__device__ __forceinline__ float nd_code_scale(float largest, float *shared)
{
    largest = nd_block_max<true>(largest, shared);
    return largest < 1e-5f ? 1e-5f : largest;
}

__device__ __forceinline__ float nd_code_factor(float scale)
{
    return scale <= 3.402823466e38f ? 127.0f / scale : 0.0f;
}

/* Codes and scale of the block's row of n elements: value(i, x) is elements [i, i + ND_WIDE). */
template <typename F>
__device__ __forceinline__ void nd_quantize_row(int8_t *q, float *scale, int64_t n, bool wide,
                                                float *shared, F value)
{
    const int64_t step = (int64_t)blockDim.x * ND_WIDE, first = (int64_t)threadIdx.x * ND_WIDE;
    float largest = 0.0f, x[ND_WIDE];
    for (int64_t i = first; i < n; i += step) {
        value(i, x);
        for (int j = 0; j < ND_WIDE; j++)
            largest = nd_larger<true>(largest, fabsf(x[j]));
    }
    largest = nd_code_scale(largest, shared);
    if (threadIdx.x == 0)
        *scale = largest;
    const float factor = nd_code_factor(largest);
    for (int64_t i = first; i < n; i += step) {
        int code[ND_WIDE];
        value(i, x);
        for (int j = 0; j < ND_WIDE; j++)
            code[j] = nd_quantized(x[j], factor);
        nd_store_codes(q + i, n - i, wide, code);
    }
}

/* Threads for a row of n elements: whole warps, a few wide accesses per thread. */
static inline unsigned nd_row_threads(int64_t n)
{
    const int64_t wanted = nd_ceil(nd_ceil(n, ND_WIDE), 32) * 32;
    return (unsigned)(wanted < 32 ? 32 : wanted > 512 ? 512 : wanted);
}
