/* The formats of dist/reduction/gradient_wire.h, encoded and decoded on the device with the same
 * bits as on the host: NCCL sends what these kernels wrote. One launch handles many parts. */
#pragma once

#include "core/base/error.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A part of a message in device memory; `wire` and `residual` aligned to 4 bytes. */
typedef struct nd_gradient_part {
    float *values; /* [count] */
    void *wire;
    void *residual; /* for encoding only; NULL: none is kept */
    int64_t count;
    int format; /* an nd_gradient_wire */
} nd_gradient_part;

/* The most parts of one launch. */
enum { ND_GRADIENT_PARTS = 64 };

/* Enqueues nd_gradient_wire_encode of up to ND_GRADIENT_PARTS parts, none of them in fp32 and each
 * with a residual of its own, in `stream` (a cudaStream_t). A NaN in bf16 stays a NaN, possibly
 * with other bits. Not collective. Errors: those of the launch. */
nd_status nd_cuda_gradient_encode(void *stream, const nd_gradient_part *parts, int count);

/* Enqueues nd_gradient_wire_add likewise, to values that do not overlap; parts may be in fp32. */
nd_status nd_cuda_gradient_add(void *stream, const nd_gradient_part *parts, int count);

#ifdef __cplusplus
}
#endif
