/* The backend's memory, order and errors. Each family of ops has its own file. */
#include "context.cuh"

#include "cuda_backend.h"
#include "unimplemented.h"

extern "C" {
#include "core/base/dynamic_code.h"
}

#include <stdlib.h>
#include <string.h>

nd_status nd_cuda_check(cudaError_t code, const char *what, const char *file, int line)
{
    if (code == cudaSuccess)
        return ND_OK;
    cudaGetLastError(); /* reported here, not by the next call */
    return nd_error_raise(code == cudaErrorMemoryAllocation ? ND_ENOMEM : ND_EINTERNAL, file, line,
                          "cuda: %.200s: %s", what, cudaGetErrorString(code));
}

static nd_status before_wait(nd_cuda *cuda, bool all)
{
    ND_TRY(nd_cuda_not_recording(cuda));
    return cuda->before_wait ? cuda->before_wait(cuda->before_wait_context, all) : ND_OK;
}

nd_status nd_cuda_wait(nd_cuda *cuda)
{
    ND_TRY(before_wait(cuda, false));
    return ND_CUDA(cudaStreamSynchronize(cuda->stream));
}

nd_status nd_cuda_free(nd_cuda *cuda, void *memory)
{
    ND_TRY(before_wait(cuda, true));
    ND_CUDA_TRY(cudaStreamSynchronize(cuda->stream));
    return ND_CUDA(cudaFree(memory));
}

nd_status nd_cuda_scratch(nd_cuda *cuda, size_t bytes, void **scratch)
{
    if (bytes > cuda->scratch_bytes) {
        ND_TRY(nd_cuda_free(cuda, cuda->scratch)); /* enqueued ops may still use it */
        cuda->scratch = NULL;
        cuda->scratch_bytes = 0;
        cuda->epoch++;
        const cudaError_t code = cudaMalloc(&cuda->scratch, bytes);
        if (code != cudaSuccess) {
            cudaGetLastError();
            return ND_FAIL(ND_ENOMEM, "cuda: no memory for a workspace of %zu bytes (%.2f GiB): %s",
                           bytes, (double)bytes / (1024.0 * 1024.0 * 1024.0),
                           cudaGetErrorString(code));
        }
        cuda->scratch_bytes = bytes;
    }
    *scratch = cuda->scratch;
    return ND_OK;
}

/* Raises the error that a kernel recorded, once the stream is idle. */
static nd_status report_fault(nd_cuda *cuda)
{
    const nd_cuda_fault fault = *const_cast<const nd_cuda_fault *>(cuda->fault);
    if (fault.kind == ND_FAULT_NONE)
        return ND_OK;
    memset(cuda->fault, 0, sizeof *cuda->fault);
    ND_FAIL_IF(fault.kind == ND_FAULT_CUT, ND_EPEER, "the codes of %s are cut short",
               fault.name.text);
    ND_FAIL_IF(fault.kind == ND_FAULT_CHANGE, ND_EPEER,
               "the codes of %s: a change of code %lld of %lld arrived", fault.name.text,
               (long long)fault.position, (long long)fault.limit);
    ND_FAIL_IF(fault.kind == ND_FAULT_STOPPED, ND_EINTERNAL,
               "cuda: the operands of an int8 product (wgmma) did not arrive; set the environment "
               "variable ND_CUDA_INT8=mma");
    return ND_FAIL(ND_EINTERNAL, "token %d at position %lld is outside [%d, %lld)", fault.value,
                   (long long)fault.position, fault.lowest, (long long)fault.limit);
}

static nd_status cuda_synchronize(nd_backend *b)
{
    nd_cuda *cuda = nd_cuda_of(b);
    ND_TRY(nd_cuda_wait(cuda));
    return report_fault(cuda);
}

static nd_status cuda_allocate(nd_backend *b, size_t bytes, void **memory)
{
    nd_cuda *cuda = nd_cuda_of(b);
    *memory = NULL;
    if (bytes == 0)
        return ND_OK;
    ND_TRY(nd_cuda_not_recording(cuda));
    const cudaError_t code = cudaMalloc(memory, bytes);
    if (code != cudaSuccess) {
        cudaGetLastError(); /* a failed allocation is not an error of the next call */
        *memory = NULL;
        return ND_FAIL(ND_ENOMEM, "cuda: cannot allocate %zu bytes of device memory (%.2f GiB): %s",
                       bytes, (double)bytes / (1024.0 * 1024.0 * 1024.0), cudaGetErrorString(code));
    }
    return ND_CUDA(cudaMemsetAsync(*memory, 0, bytes, cuda->stream));
}

static void cuda_release(nd_backend *b, void *memory, size_t bytes)
{
    nd_cuda *cuda = nd_cuda_of(b);
    (void)bytes;
    /* Exchanges with lost peers were waited for until their timeout and then aborted. */
    if (memory && nd_cuda_free(cuda, memory) != ND_OK)
        cudaFree(memory);
}

/* Small ones go through pinned memory: the call returns at once and host memory may be reused. */
static nd_status cuda_upload(nd_backend *b, void *device, const void *host, size_t bytes)
{
    nd_cuda *cuda = nd_cuda_of(b);
    if (bytes == 0)
        return ND_OK;
    ND_TRY(nd_cuda_not_recording(cuda));
    if (bytes > ND_STAGING_BYTES) {
        ND_TRY(before_wait(cuda, false));
        ND_CUDA_TRY(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, cuda->stream));
        return nd_cuda_wait(cuda);
    }
    const int slot = cuda->staging_next;
    unsigned char *staged = cuda->staging + (size_t)slot * ND_STAGING_BYTES;
    cuda->staging_next = (slot + 1) % ND_STAGING_SLOTS;
    if (cudaEventQuery(cuda->staging_free[slot]) != cudaSuccess) {
        cudaGetLastError(); /* "not ready" is remembered, too, and a launch would report it */
        ND_TRY(before_wait(cuda, false));
    }
    ND_CUDA_TRY(cudaEventSynchronize(cuda->staging_free[slot]));
    memcpy(staged, host, bytes);
    ND_CUDA_TRY(cudaMemcpyAsync(device, staged, bytes, cudaMemcpyHostToDevice, cuda->stream));
    return ND_CUDA(cudaEventRecord(cuda->staging_free[slot], cuda->stream));
}

static nd_status cuda_download(nd_backend *b, void *host, const void *device, size_t bytes)
{
    nd_cuda *cuda = nd_cuda_of(b);
    ND_TRY(before_wait(cuda, false)); /* the copy itself waits if host memory is pageable */
    if (bytes > 0)
        ND_CUDA_TRY(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, cuda->stream));
    return cuda_synchronize(b);
}

static nd_status cuda_copy(nd_backend *b, void *destination, const void *source, size_t bytes)
{
    nd_cuda *cuda = nd_cuda_of(b);
    if (bytes > 0)
        ND_CUDA_TRY(
            cudaMemcpyAsync(destination, source, bytes, cudaMemcpyDeviceToDevice, cuda->stream));
    return ND_OK;
}

static nd_status cuda_zero(nd_backend *b, void *memory, size_t bytes)
{
    nd_cuda *cuda = nd_cuda_of(b);
    if (bytes > 0)
        ND_CUDA_TRY(cudaMemsetAsync(memory, 0, bytes, cuda->stream));
    return ND_OK;
}

static size_t cuda_workspace_bytes(const nd_backend *b)
{
    const nd_cuda *cuda = nd_cuda_of(b);
    const size_t rope =
        2 * (size_t)(cuda->rope_positions * (cuda->rope_head_dim / 2)) * sizeof(float);
    return cuda->scratch_bytes + rope + 2 * sizeof(nd_dynamic_code) + nd_cuda_matmuls_bytes(cuda);
}

static void cuda_destroy(nd_backend *b)
{
    nd_cuda *cuda = nd_cuda_of(b);
    if (cuda->stream)
        cudaStreamSynchronize(cuda->stream);
    nd_cuda_library_attention_destroy(cuda);
    nd_cuda_int8_choices_destroy(cuda);
    nd_cuda_matmuls_destroy(cuda);
    for (int slot = 0; slot < ND_STAGING_SLOTS; slot++)
        if (cuda->staging_free[slot])
            cudaEventDestroy(cuda->staging_free[slot]);
    cudaFreeHost(cuda->staging);
    cudaFreeHost(cuda->fault);
    cudaFree(cuda->scratch);
    cudaFree(cuda->rope);
    cudaFree(cuda->dynamic_codes);
    cudaFree(cuda->constants);
    if (cuda->stream)
        cudaStreamDestroy(cuda->stream);
    free(cuda);
    free(b);
}

static nd_status upload_tables(nd_backend *b)
{
    nd_cuda *cuda = nd_cuda_of(b);
    const float constants[2] = {0.0f, 1.0f};
    nd_dynamic_code codes[2];
    nd_dynamic_code_fill(&codes[0], true);
    nd_dynamic_code_fill(&codes[1], false);
    ND_CUDA_TRY(cudaMalloc(&cuda->dynamic_codes, sizeof codes));
    ND_CUDA_TRY(cudaMalloc(reinterpret_cast<void **>(&cuda->constants), sizeof constants));
    ND_TRY(cuda_upload(b, cuda->dynamic_codes, codes, sizeof codes));
    return cuda_upload(b, cuda->constants, constants, sizeof constants);
}

static nd_status open_device(nd_backend *b, const nd_cuda_options *options)
{
    nd_cuda *cuda = nd_cuda_of(b);
    char reason[256];
    const int devices = nd_cuda_device_count(reason, sizeof reason);
    int shared = 0;
    void *fault = NULL, *staging = NULL;
    ND_FAIL_IF(devices == 0, ND_ECONFIG, "no CUDA device: %s", reason);
    ND_FAIL_IF(options->device < 0 || options->device >= devices, ND_ECONFIG,
               "no CUDA device %d: this host has %d", options->device, devices);
    cuda->device = options->device;
    cuda->int8 = options->int8;
    cuda->attention = options->attention;
    ND_CUDA_TRY(cudaSetDevice(cuda->device));
    ND_CUDA_TRY(cudaDeviceGetAttribute(&cuda->multiprocessors, cudaDevAttrMultiProcessorCount,
                                       cuda->device));
    ND_CUDA_TRY(
        cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, cuda->device));
    cuda->shared_limit = (size_t)shared;
    ND_CUDA_TRY(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking));
    ND_CUDA_TRY(cudaHostAlloc(&fault, sizeof *cuda->fault, cudaHostAllocMapped));
    cuda->fault = static_cast<nd_cuda_fault *>(fault);
    memset(cuda->fault, 0, sizeof *cuda->fault);
    ND_CUDA_TRY(cudaHostAlloc(&staging, (size_t)ND_STAGING_SLOTS * ND_STAGING_BYTES, 0));
    cuda->staging = static_cast<unsigned char *>(staging);
    for (int slot = 0; slot < ND_STAGING_SLOTS; slot++)
        ND_CUDA_TRY(cudaEventCreateWithFlags(&cuda->staging_free[slot], cudaEventDisableTiming));
    ND_TRY(upload_tables(b));
    ND_TRY(nd_cuda_matmuls_create(cuda));
    ND_TRY(nd_cuda_int8_choices_create(cuda));
    return nd_cuda_library_attention_create(cuda);
}

static void fill_memory(nd_backend_ops *ops)
{
    ops->name = "cuda";
    ops->host_memory = false;
    ops->destroy = cuda_destroy;
    ops->workspace_bytes = cuda_workspace_bytes;
    ops->allocate = cuda_allocate;
    ops->release = cuda_release;
    ops->upload = cuda_upload;
    ops->download = cuda_download;
    ops->copy = cuda_copy;
    ops->zero = cuda_zero;
    ops->synchronize = cuda_synchronize;
}

extern "C" nd_status nd_cuda_backend_create(const nd_cuda_options *options, nd_backend **backend)
{
    nd_backend *made = static_cast<nd_backend *>(calloc(1, sizeof *made));
    nd_cuda *cuda = static_cast<nd_cuda *>(calloc(1, sizeof *cuda));
    if (!made || !cuda) {
        free(made);
        free(cuda);
        return ND_FAIL(ND_ENOMEM, "no memory for the CUDA backend");
    }
    made->context = cuda;
    nd_unimplemented_ops(&made->ops);
    fill_memory(&made->ops);
    nd_cuda_fill_codes(&made->ops);
    nd_cuda_fill_ternary(&made->ops);
    nd_cuda_fill_int8(&made->ops);
    nd_cuda_fill_products(&made->ops);
    nd_cuda_fill_symmetric(&made->ops);
    nd_cuda_fill_norms(&made->ops);
    nd_cuda_fill_swiglu(&made->ops);
    nd_cuda_fill_rope(&made->ops);
    nd_cuda_fill_elementwise(&made->ops);
    nd_cuda_fill_attention(&made->ops);
    nd_cuda_fill_loss(&made->ops);
    nd_cuda_fill_updates(&made->ops);
    nd_cuda_fill_state(&made->ops);
    nd_cuda_fill_recording(&made->ops);
    const nd_status status = open_device(made, options);
    made->traits = {"", true, true, true};
    if (status == ND_OK)
        nd_cuda_describe(made, made->traits.device, sizeof made->traits.device);
    ND_RETURN_MADE(status, made, cuda_destroy, backend);
}
