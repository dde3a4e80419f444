/* The CUDA backend: every slot of core/backend/backend.h on one NVIDIA GPU (compute capability 8.0
 * and later). No vendor types appear here. docs/gpu.md says what was run on which device. */
#pragma once

#include "core/backend/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What computes attention in bf16 over all tokens; everything else uses the project's kernels. */
typedef enum nd_cuda_attention {
    ND_CUDA_ATTENTION_AUTO,   /* cuDNN where it is installed and supports the shape */
    ND_CUDA_ATTENTION_CUDNN,  /* cuDNN; an unsupported shape is an error */
    ND_CUDA_ATTENTION_BUILTIN /* the project's kernels */
} nd_cuda_attention;

/* What computes int8 products; the bits are the same. */
typedef enum nd_cuda_int8 {
    ND_CUDA_INT8_FASTEST, /* the fastest, measured when a shape is first used */
    ND_CUDA_INT8_LIBRARY, /* cuBLASLt and a scaling pass, where it supports the shape */
    ND_CUDA_INT8_OWN,     /* the project's kernels, with fused scaling */
    ND_CUDA_INT8_MMA      /* of these only the kernel that runs on every device (mma.sync) */
} nd_cuda_int8;

typedef struct nd_cuda_options {
    int device; /* the number of the GPU in the CUDA runtime */
    nd_cuda_int8 int8;
    nd_cuda_attention attention;
} nd_cuda_options;

/* The number of GPUs that this process may use; 0 without a driver. `reason` (`size` bytes, may be
 * NULL) says why there are none. */
int nd_cuda_device_count(char *reason, size_t size);

/* Creates a backend on device `options->device`; the caller owns it. f32 and bf16 only: other float
 * types are ND_EINTERNAL, except f64 where a slot requires it. Errors: ND_ECONFIG when there is no
 * such device, ND_EINTERNAL when a library (cuBLASLt, or cuDNN when required) is missing,
 * ND_ENOMEM. */
nd_status nd_cuda_backend_create(const nd_cuda_options *options, nd_backend **backend);

/* "NVIDIA H100 80GB HBM3, 79.1 GiB, compute capability 9.0": traits.device, for the log. */
void nd_cuda_describe(const nd_backend *backend, char *text, size_t size);

/* nd_device_memory_left (dist/device.h). */
size_t nd_cuda_memory_left(void);

#ifdef __cplusplus
}
#endif
