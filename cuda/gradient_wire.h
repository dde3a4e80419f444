/* The formats of dist/gradient_wire.h made and read on the device, to the bit as on the host: NCCL sends what
 * these kernels wrote, and the host touches nothing. */
#pragma once

#include "core/base/error.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* nd_gradient_wire_encode in `stream` (a cudaStream_t); memory of the device, `wire` and `residual` aligned
 * to 4 bytes. `format` is an nd_gradient_wire other than fp32. Where bf16 carries a NaN, only that it is
 * one is the same. */
nd_status nd_cuda_gradient_encode(void *stream, int format, void *wire, const float *values,
                                  void *residual, int64_t count);

/* nd_gradient_wire_add likewise. */
nd_status nd_cuda_gradient_add(void *stream, int format, float *into, const void *wire,
                               int64_t count);

#ifdef __cplusplus
}
#endif
