/* The GPUs of this machine and their names. */
#include "context.cuh"

#include "cuda_backend.h"

#include <stdio.h>

extern "C" int nd_cuda_device_count(char *reason, size_t size)
{
    int devices = 0;
    const cudaError_t code = cudaGetDeviceCount(&devices);
    if (code == cudaSuccess && devices > 0)
        return devices;
    cudaGetLastError();
    if (reason && size > 0)
        snprintf(reason, size, "%s",
                 code == cudaSuccess ? "the driver shows none" : cudaGetErrorString(code));
    return 0;
}

extern "C" size_t nd_cuda_memory_left(void)
{
    size_t left = 0, total;
    if (cudaMemGetInfo(&left, &total) == cudaSuccess)
        return left;
    cudaGetLastError();
    return SIZE_MAX;
}

extern "C" void nd_cuda_describe(const nd_backend *backend, char *text, size_t size)
{
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, nd_cuda_of(backend)->device) != cudaSuccess) {
        snprintf(text, size, "a CUDA device");
        return;
    }
    snprintf(text, size, "%s, %.1f GiB, compute capability %d.%d", properties.name,
             (double)properties.totalGlobalMem / (1024.0 * 1024.0 * 1024.0), properties.major,
             properties.minor);
}
