/* CUDA's runtime for the kernels that run on the host: memory is the heap's, streams run at once, a
 * graph is what was enqueued while it was captured. */
#include "cuda_emulation.h"

#include <stdlib.h>
#include <unordered_map>
#include <vector>

static cudaError_t last_error;

cudaError_t cudaGetLastError()
{
    const cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

static cudaError_t fail(cudaError_t error)
{
    last_error = error;
    return error;
}

/* Of kernels that raise no limit: room for a reduction over a block, as each that takes shared
 * memory at its launch has of its own. */
static const size_t default_shared = (48 << 10) - 32 * sizeof(float);

static std::unordered_map<const void *, size_t> shared_of_kernels;

void nd_emulated_allow_shared(const void *kernel, size_t bytes)
{
    shared_of_kernels[kernel] = bytes;
}

bool nd_emulated_may_launch(const void *kernel, size_t shared)
{
    const auto raised = shared_of_kernels.find(kernel);
    const size_t most = raised == shared_of_kernels.end() ? default_shared : raised->second;
    if (shared <= most)
        return true;
    fail(cudaErrorInvalidValue);
    return false;
}

/* No device has so much. */
static const size_t most_bytes = (size_t)1 << 40;

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    *memory = bytes <= most_bytes ? aligned_alloc(256, (bytes + 255) / 256 * 256) : NULL;
    if (!*memory)
        return fail(cudaErrorMemoryAllocation);
    memset(*memory, 0xff, bytes);
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory)
{
    free(memory);
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned)
{
    return cudaMalloc(memory, bytes);
}

cudaError_t cudaFreeHost(void *memory)
{
    free(memory);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind, cudaStream_t)
{
    nd_emulated_do([=] { memcpy(to, from, bytes); });
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t)
{
    nd_emulated_do([=] { memset(memory, value, bytes); });
    return cudaSuccess;
}

const char *cudaGetErrorString(cudaError_t code)
{
    if (code == cudaErrorStreamCaptureUnsupported)
        return "not while the stream is captured";
    if (code == cudaErrorInvalidValue)
        return "invalid argument";
    return code == cudaErrorMemoryAllocation ? "out of memory" : "no error";
}

struct nd_emulated_graph {
    std::vector<std::function<void()>> work;
};

static nd_emulated_graph *capturing;

void nd_emulated_do(std::function<void()> work)
{
    if (capturing)
        capturing->work.push_back(std::move(work));
    else
        work();
}

cudaError_t cudaStreamSynchronize(cudaStream_t)
{
    return capturing ? fail(cudaErrorStreamCaptureUnsupported) : cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode)
{
    if (capturing)
        return fail(cudaErrorStreamCaptureUnsupported);
    capturing = new nd_emulated_graph();
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *graph)
{
    *graph = capturing;
    capturing = NULL;
    return *graph ? cudaSuccess : fail(cudaErrorStreamCaptureUnsupported);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *made, cudaGraph_t graph, unsigned long long)
{
    *made = new nd_emulated_graph(*graph);
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t)
{
    if (capturing)
        return fail(cudaErrorStreamCaptureUnsupported);
    for (const std::function<void()> &work : graph->work)
        work();
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph)
{
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t, cudaEvent_t)
{
    static int asked;
    const int turn = asked++ % 4;
    *milliseconds = turn == 0 || turn == 3 ? 1.0f : 2.0f;
    return cudaSuccess;
}
