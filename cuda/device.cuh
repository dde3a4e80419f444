/* The language of kernels: CUDA C++ and wrappers of the few instructions without C++ names. With
 * ND_CUDA_EMULATED the same sources are compiled for the host, where tests/cuda/emulation runs the
 * threads of a block as fibers, which tests kernels without a GPU. */
#pragma once

#include <stdint.h>

#ifdef ND_CUDA_EMULATED
#include "cuda_emulation.h"
#else
#include <cuda_bf16.h>
#include <cuda_runtime.h>

/* clang-format off */
#define ND_LAUNCH(kernel, grid, block, shared, stream, ...)                                        \
    ((kernel)<<<(grid), (block), (shared), (stream)>>>(__VA_ARGS__), cudaGetLastError())
/* clang-format on */
#define ND_DYNAMIC_SHARED(name) extern __shared__ __align__(128) unsigned char name[]
#define ND_UNROLL _Pragma("unroll")
#define ND_NO_UNROLL _Pragma("unroll 1")
#define ND_UNROLL_TWO _Pragma("unroll 2")
#define ND_UNROLL_FOUR _Pragma("unroll 4")

__device__ __forceinline__ uint32_t nd_shared_address(const void *pointer)
{
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

/* Copies 16 bytes from global to shared memory, asynchronously; zeros unless `valid`. */
__device__ __forceinline__ void nd_copy_async(void *shared, const void *global, bool valid)
{
    const int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(nd_shared_address(shared)),
                 "l"(global), "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ void nd_copy_commit()
{
    asm volatile("cp.async.commit_group;\n" ::: "memory");
}

/* Waits until at most N of this thread's committed groups are in flight. */
template <int N> __device__ __forceinline__ void nd_copy_wait()
{
    asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
}

/* Loads four 8 x 8 matrices of 16-bit elements (or 8 x 16 bytes): lane l passes the address of row
 * l % 8 of matrix l / 8 and receives elements 2 (l % 4), 2 (l % 4) + 1 of row l / 4 of each. */
__device__ __forceinline__ void nd_load_matrices(uint32_t out[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(nd_shared_address(row))
                 : "memory");
}

/* The same with each matrix transposed. */
__device__ __forceinline__ void nd_load_matrices_transposed(uint32_t out[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(nd_shared_address(row))
                 : "memory");
}

/* c [16, 8] += a [16, 16] b [16, 8], bf16 in, f32 out. */
__device__ __forceinline__ void nd_mma_bf16(float c[4], const uint32_t a[4], uint32_t b0,
                                            uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* c [16, 8] += a [16, 32] b [32, 8], int8 in, int32 out. */
__device__ __forceinline__ void nd_mma_int8(int32_t c[4], const uint32_t a[4], uint32_t b0,
                                            uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* `low` in the low half. */
__device__ __forceinline__ uint32_t nd_pack_bf16(float low, float high)
{
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

__device__ __forceinline__ uint16_t nd_bf16_of(float x)
{
    return __bfloat16_as_ushort(__float2bfloat16_rn(x));
}

__device__ __forceinline__ uint32_t nd_bits_of(float x)
{
    return __float_as_uint(x);
}

__device__ __forceinline__ float nd_float_of(uint32_t bits)
{
    return __uint_as_float(bits);
}

/* x y, rounded before anything is added to it (no fused multiply-add). */
__device__ __forceinline__ float nd_product(float x, float y)
{
    return __fmul_rn(x, y);
}

#endif

__device__ __forceinline__ float nd_float_of_bf16(uint16_t h)
{
    return nd_float_of((uint32_t)h << 16);
}

/* Loops over 0 <= i < count distributed over all threads of a grid: one element per iteration, or
 * ND_WIDE elements (floats.cuh) from i on. */
#define ND_GRID_LOOP(i, count)                                                                     \
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < (count);                  \
         i += (int64_t)gridDim.x * blockDim.x)
#define ND_GRID_LOOP_WIDE(i, count)                                                                \
    for (int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * ND_WIDE; i < (count);      \
         i += (int64_t)gridDim.x * blockDim.x * ND_WIDE)
