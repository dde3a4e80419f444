/* Enough of CUDA to run the kernels of cuda/ on the host: blocks one after another, the threads of
 * a block as fibers that switch at barriers and at the instructions a warp executes together. The
 * order in which warps run changes from barrier to barrier, so that a missing barrier shows;
 * asynchronous copies arrive only when they are waited for; memory is the heap's, so that a
 * sanitizer sees every access outside it. It says nothing about speed, registers or what only the
 * hardware does. */
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <functional>
#include <tuple>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __shared__ static
#define ND_UNROLL
#define ND_NO_UNROLL
#define ND_UNROLL_TWO
#define ND_UNROLL_FOUR
#define __align__(n) __attribute__((aligned(n)))

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct __align__(16) float4
{
    float x, y, z, w;
};
struct __align__(16) uint4
{
    uint32_t x, y, z, w;
};
struct __align__(8) uint2
{
    uint32_t x, y;
};
static inline float4 make_float4(float x, float y, float z, float w)
{
    return {x, y, z, w};
}
struct __align__(8) float2
{
    float x, y;
};
static inline float2 make_float2(float x, float y)
{
    return {x, y};
}
static inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w)
{
    return {x, y, z, w};
}
static inline uint2 make_uint2(uint32_t x, uint32_t y)
{
    return {x, y};
}

/* The running thread. */

struct nd_emulated_place {
    dim3 thread, block, block_size, grid_size;
};
const nd_emulated_place &nd_emulated_here();
#define threadIdx (nd_emulated_here().thread)
#define blockIdx (nd_emulated_here().block)
#define blockDim (nd_emulated_here().block_size)
#define gridDim (nd_emulated_here().grid_size)

void nd_emulated_run(dim3 grid, dim3 block, size_t shared, void (*body)(void *), void *context);
unsigned char *nd_emulated_shared();
void __syncthreads();
/* Waits for the lanes of this warp; `mine` is what the others read as deposit(lane). */
void nd_emulated_exchange(const void *mine, size_t bytes);
const void *nd_emulated_deposit(int lane);
int nd_emulated_lane();
/* Lets the others run until it holds. */
void nd_emulated_wait_until(std::function<bool()> holds);
uint32_t nd_emulated_random();

static inline void __syncwarp(uint32_t = 0xffffffffu)
{
    nd_emulated_exchange("", 1);
}

template <typename T> T nd_emulated_shuffle(T value, int from)
{
    nd_emulated_exchange(&value, sizeof value);
    T out;
    memcpy(&out, nd_emulated_deposit(from & 31), sizeof out);
    return out;
}
template <typename T> T __shfl_xor_sync(uint32_t, T value, int mask)
{
    return nd_emulated_shuffle(value, nd_emulated_lane() ^ mask);
}
template <typename T> T __shfl_sync(uint32_t, T value, int lane)
{
    return nd_emulated_shuffle(value, lane);
}

template <typename F> void nd_emulated_call(void *f)
{
    (*static_cast<F *>(f))();
}
/* Runs it, or keeps it while the stream is captured. */
void nd_emulated_do(std::function<void()> work);

/* What a kernel may ask for at a launch: the default, or what cudaFuncSetAttribute gave it. When it
 * asks for more the launch fails. */
void nd_emulated_allow_shared(const void *kernel, size_t bytes);
bool nd_emulated_may_launch(const void *kernel, size_t shared);

/* Arguments are evaluated now, whenever the kernel runs. */
template <typename... P, typename... A>
void nd_emulated_launch(dim3 grid, dim3 block, size_t shared, void (*kernel)(P...), A... arguments)
{
    const std::tuple<P...> values(arguments...);
    if (!nd_emulated_may_launch(reinterpret_cast<const void *>(kernel), shared))
        return;
    nd_emulated_do([=] {
        auto body = [&] { std::apply(kernel, values); };
        nd_emulated_run(grid, block, shared, nd_emulated_call<decltype(body)>, &body);
    });
}

typedef int cudaError_t;
enum {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorStreamCaptureUnsupported = 900,
};
cudaError_t cudaGetLastError(); /* of any call before; then it is forgotten */
#define ND_LAUNCH(kernel, grid, block, shared, stream, ...)                                        \
    ((void)(stream), nd_emulated_launch(grid, block, shared, kernel, __VA_ARGS__),                 \
     cudaGetLastError())
#define ND_DYNAMIC_SHARED(name) unsigned char *const name = nd_emulated_shared()

/* Instructions. */

void nd_copy_async(void *shared, const void *global, bool valid);
void nd_copy_commit();
void nd_emulated_copy_wait(int groups);
template <int N> void nd_copy_wait()
{
    nd_emulated_copy_wait(N);
}
void nd_load_matrices(uint32_t out[4], const void *row);
void nd_load_matrices_transposed(uint32_t out[4], const void *row);
void nd_mma_bf16(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1);
void nd_mma_int8(int32_t c[4], const uint32_t a[4], uint32_t b0, uint32_t b1);
uint16_t nd_bf16_of(float x);
static inline uint32_t nd_pack_bf16(float low, float high)
{
    return nd_bf16_of(low) | (uint32_t)nd_bf16_of(high) << 16;
}
static inline uint32_t nd_bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static inline float nd_product(float x, float y)
{
    const volatile float rounded = x * y; /* nothing is contracted with it */
    return rounded;
}
static inline float nd_float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The runtime. */

typedef struct nd_emulated_stream *cudaStream_t;
typedef struct nd_emulated_event *cudaEvent_t;
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount,
    cudaDevAttrComputeCapabilityMajor,
    cudaDevAttrComputeCapabilityMinor,
    cudaDevAttrMaxSharedMemoryPerBlockOptin,
};
enum { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum {
    cudaStreamNonBlocking = 1,
    cudaEventDefault = 0,
    cudaEventDisableTiming = 2,
    cudaHostAllocMapped = 2
};

cudaError_t cudaMalloc(void **memory, size_t bytes);
cudaError_t cudaFree(void *memory);
cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void *memory);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind, cudaStream_t);
cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t);
const char *cudaGetErrorString(cudaError_t);
static inline cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 1;
    return cudaSuccess;
}
static inline cudaError_t cudaSetDevice(int)
{
    return cudaSuccess;
}
static inline cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int)
{
    *value = attribute == cudaDevAttrMultiProcessorCount      ? 3
             : attribute == cudaDevAttrComputeCapabilityMajor ? 9
             : attribute == cudaDevAttrComputeCapabilityMinor ? 0
                                                              : 227 << 10;
    return cudaSuccess;
}
static inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
{
    *stream = NULL;
    return cudaSuccess;
}
static inline cudaError_t cudaStreamDestroy(cudaStream_t)
{
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t);

/* A graph is what was enqueued while it was captured. */
typedef struct nd_emulated_graph *cudaGraph_t, *cudaGraphExec_t;
enum cudaStreamCaptureMode { cudaStreamCaptureModeRelaxed = 2 };
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode);
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *made, cudaGraph_t graph,
                                 unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph);

static inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
    *event = NULL;
    return cudaSuccess;
}
static inline cudaError_t cudaEventDestroy(cudaEvent_t)
{
    return cudaSuccess;
}
static inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t)
{
    return cudaSuccess;
}
static inline cudaError_t cudaEventQuery(cudaEvent_t)
{
    return cudaSuccess;
}
static inline cudaError_t cudaEventSynchronize(cudaEvent_t)
{
    return cudaSuccess;
}
/* Of two that are compared, first the one and then the other is shorter. */
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to);
template <typename F> cudaError_t cudaFuncSetAttribute(F kernel, int, int bytes)
{
    nd_emulated_allow_shared(reinterpret_cast<const void *>(kernel), (size_t)bytes);
    return cudaSuccess;
}
