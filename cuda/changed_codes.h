/* Kernels that encode and decode the entries of a code stream. */
#pragma once

#include "dist/weights/code_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* For memory of a CUDA backend. `work` and `at` are aligned to 8 bytes. */
extern const nd_code_kernels nd_cuda_code_kernels;

#ifdef __cplusplus
}
#endif
