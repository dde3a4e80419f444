/* Sums over rows for the gradient of a norm's weights: each block writes its own sums, which are
 * then added in the order of blocks, so that the result depends only on the shape. */
#pragma once

#include "floats.cuh"

/* Blocks that share the rows in the backward pass of a norm. */
enum { ND_ROW_BLOCKS = 528 };

/* dw[i] += sum over `parts` rows of partial [parts, n]. */
nd_status nd_cuda_add_columns(nd_cuda *cuda, nd_view dw, const float *partial, int64_t parts,
                              int64_t n);

/* A kernel's static memory, for nd_block_sum, which counts against the limits of dynamic memory. */
enum { ND_SUM_SHARED = 32 * sizeof(float) };

static inline bool nd_cuda_fits_shared(const nd_cuda *cuda, size_t bytes)
{
    return bytes + ND_SUM_SHARED <= cuda->shared_limit;
}

/* Raises the kernel's limit of dynamic shared memory when a row needs more than the default. */
template <typename F> nd_status nd_cuda_allow_shared(const nd_cuda *cuda, F kernel, size_t bytes)
{
    const size_t own = ND_SUM_SHARED;
    ND_FAIL_IF(!nd_cuda_fits_shared(cuda, bytes), ND_EINTERNAL,
               "cuda: a row needs %zu bytes of shared memory, %zu are available", bytes + own,
               cuda->shared_limit);
    if (bytes + own > 48 * 1024)
        ND_CUDA_TRY(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes));
    return ND_OK;
}

/* 1 / sqrt(mean(x^2) + 1e-5) of a row of n elements from each thread's sum of squares. */
__device__ __forceinline__ float nd_norm_scale(float squares, int64_t n, float *shared)
{
    return 1.0f / sqrtf(nd_block_sum(squares, shared) / (float)n + 1e-5f);
}

/* The shared-memory index of column i + j of a row, where i is the first of this thread's eight
 * columns. A thread's columns are blockDim.x apart, which avoids bank conflicts. */
__device__ __forceinline__ int nd_own_column(int64_t i, int j)
{
    const int thread = (int)threadIdx.x;
    return (int)i - thread * ND_WIDE + j * (int)blockDim.x + thread;
}

/* Bytes of shared memory for all columns of a row. */
static inline size_t nd_own_columns_bytes(int64_t n)
{
    const int64_t step = (int64_t)nd_row_threads(n) * ND_WIDE;
    return (size_t)(nd_ceil(n, step) * step) * sizeof(float);
}

/* Zeroes the columns, each by the thread that will add to it. */
__device__ __forceinline__ void nd_clear_columns(float *dw, int64_t n)
{
    for (int64_t i = (int64_t)threadIdx.x * ND_WIDE; i < n; i += (int64_t)blockDim.x * ND_WIDE)
        for (int j = 0; j < ND_WIDE; j++)
            dw[nd_own_column(i, j)] = 0.0f;
}

/* Writes the block's sums to its row of partial [blocks, n]. */
__device__ __forceinline__ void nd_store_columns(float *partial, const float *dw, int64_t n)
{
    for (int64_t i = (int64_t)threadIdx.x * ND_WIDE; i < n; i += (int64_t)blockDim.x * ND_WIDE)
        for (int j = 0; j < ND_WIDE; j++)
            if (i + j < n)
                partial[(int64_t)blockIdx.x * n + i + j] = dw[nd_own_column(i, j)];
}
