/* The CUDA backend: every slot of core/backend/backend.h on one NVIDIA GPU (compute capability 8.0 and later).
 * No type of the vendor's appears here. docs/gpu.md says what was run on which device. */
#pragma once

#include "core/backend/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Who computes attention in bf16 over all tokens; everything else is the project's own. */
typedef enum nd_cuda_attention {
    ND_CUDA_ATTENTION_AUTO,  /* cuDNN where it is there and fits */
    ND_CUDA_ATTENTION_CUDNN, /* cuDNN; what it refuses is an error */
    ND_CUDA_ATTENTION_OWN    /* the project's kernels */
} nd_cuda_attention;

/* Who multiplies in int8; the bits are the same. */
typedef enum nd_cuda_int8 {
    ND_CUDA_INT8_FASTEST, /* whichever is, as measured when a shape is first met */
    ND_CUDA_INT8_LIBRARY, /* cuBLASLt and a pass that scales, where it takes the shape */
    ND_CUDA_INT8_OWN,     /* the project's own kernels, with their scaling fused */
    ND_CUDA_INT8_MMA      /* of these, only the one that runs on every device (mma.sync) */
} nd_cuda_int8;

typedef struct nd_cuda_options {
    int device; /* number of the GPU, as the runtime counts them */
    nd_cuda_int8 int8;
    nd_cuda_attention attention;
} nd_cuda_options;

/* GPUs this process may use; 0 where there is no driver. `reason` (of `size` bytes, may be NULL) says
 * why when there are none. */
int nd_cuda_device_count(char *reason, size_t size);

/* Takes device `options->device`. f32 and bf16 only: other float types are ND_EINTERNAL, except f64
 * where a slot asks for it. Errors: ND_ECONFIG when there is no such device, ND_EINTERNAL when a
 * library (cuBLASLt, or cuDNN when it is insisted on) is missing, ND_ENOMEM. */
nd_status nd_cuda_backend_create(const nd_cuda_options *options, nd_backend **backend);

/* "NVIDIA H100 80GB HBM3, 79.1 GiB, compute capability 9.0": traits.device of the backend, for the log. */
void nd_cuda_describe(const nd_backend *backend, char *text, size_t size);

#ifdef __cplusplus
}
#endif
