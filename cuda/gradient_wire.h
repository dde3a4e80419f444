/* The formats of dist/gradient_wire.h made and read on the device, to the bit as on the host: NCCL sends what
 * these kernels wrote, and the host touches nothing. Many parts a launch. */
#pragma once

#include "core/base/error.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A part of a message, in memory of the device; `wire` and `residual` aligned to 4 bytes. */
typedef struct nd_gradient_part {
    float *values; /* [count] */
    void *wire;
    void *residual; /* of what is encoded; NULL: none is kept */
    int64_t count;
    int format; /* an nd_gradient_wire */
} nd_gradient_part;

/* Parts of one launch. */
enum { ND_GRADIENT_PARTS = 64 };

/* nd_gradient_wire_encode of up to ND_GRADIENT_PARTS parts with residuals of their own, none in fp32, in `stream` (a
 * cudaStream_t). Where bf16 carries a NaN, only that it is one is the same. Not collective. Errors: those of the
 * launch. */
nd_status nd_cuda_gradient_encode(void *stream, const nd_gradient_part *parts, int count);

/* nd_gradient_wire_add likewise, to values that do not overlap; fp32 too. */
nd_status nd_cuda_gradient_add(void *stream, const nd_gradient_part *parts, int count);

#ifdef __cplusplus
}
#endif
