/* The formats of dist/gradient_wire.h, encoded and decoded on the device with the same bits as on
 * the host: NCCL sends what these kernels wrote. */
#pragma once

#include "core/base/error.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* nd_gradient_wire_encode in `stream` (a cudaStream_t) for device memory; `wire` and `residual`
 * aligned to 4 bytes. `format` is an nd_gradient_wire other than fp32. A NaN in bf16 stays a NaN,
 * possibly with other bits. */
nd_status nd_cuda_gradient_encode(void *stream, int format, void *wire, const float *values,
                                  void *residual, int64_t count);

/* nd_gradient_wire_add in `stream`, likewise. */
nd_status nd_cuda_gradient_add(void *stream, int format, float *into, const void *wire,
                               int64_t count);

#ifdef __cplusplus
}
#endif
