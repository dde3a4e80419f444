/* Attention through cuDNN's graph interface: one execution plan for each shape and direction, made when a
 * shape is first met and kept. No type of the vendor's appears here.
 *
 * Causal attention of sequences of one length over their own keys, in bf16 with f32 statistics, in the
 * layout of core/backend/backend.h: tokens x heads x head_dim. What cuDNN cannot do, or not with the same bits
 * every time, is refused with a reason; whoever asked computes it otherwise. */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct nd_cudnn nd_cudnn;

typedef struct nd_cudnn_shape {
    int64_t sequences, length, heads, kv_heads, head_dim;
    bool backward;
} nd_cudnn_shape;

typedef struct nd_cudnn_plan nd_cudnn_plan;

/* cuDNN on the current device, of compute capability `capability` (90 is 9.0), for work in `stream` (a
 * cudaStream_t). Errors: ND_EINTERNAL when the library is missing, lacks a function or is too old. */
nd_status nd_cudnn_create(void *stream, int capability, nd_cudnn **cudnn);

/* The same for a device that is described and need not be there: plans can be made, not run. `json`: what
 * cuDNN writes of a device (CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION). */
nd_status nd_cudnn_create_described(const char *json, int capability, nd_cudnn **cudnn);
void nd_cudnn_destroy(nd_cudnn *cudnn);

/* Why a version refuses a shape on a device whatever its engines say; NULL when it does not. */
const char *nd_cudnn_refuses(int64_t version, int capability, const nd_cudnn_shape *shape);

/* What a plan computes at once: all of it forward; backward as many sequences, or heads of one, as have
 * their ds [length, length] in `bytes`. False when one head of k and v is too much. */
bool nd_cudnn_part(const nd_cudnn_shape *shape, int64_t bytes, nd_cudnn_shape *part);

/* The plan of a shape, known or made now. A shape that is refused has a plan too, with
 * nd_cudnn_plan_reason. Errors: ND_ENOMEM. */
nd_status nd_cudnn_plan_for(nd_cudnn *cudnn, const nd_cudnn_shape *shape, nd_cudnn_plan **plan);

/* The plan of a shape that was used before; NULL for a new one. */
nd_cudnn_plan *nd_cudnn_plan_known(const nd_cudnn *cudnn, const nd_cudnn_shape *shape);

/* Why the shape is refused; NULL when the plan can be run. */
const char *nd_cudnn_plan_reason(const nd_cudnn_plan *plan);

/* From here on the shape is refused, for this reason. */
void nd_cudnn_plan_reject(nd_cudnn_plan *plan, const char *reason);

/* Device memory that running it takes, in bytes, aligned to 256; and the number of the engine. */
size_t nd_cudnn_plan_workspace(const nd_cudnn_plan *plan);
int64_t nd_cudnn_plan_engine(const nd_cudnn_plan *plan);

/* What a plan reads and writes: q, o, dout, dq bf16 [tokens, heads*head_dim]; k, v, dk, dv bf16 [tokens,
 * kv_heads*head_dim]; lse f32 [tokens, heads]. o and lse are written forward and read backward; the
 * last four are of the backward pass alone. Addresses are multiples of 16 (lse: of 4). */
typedef struct nd_cudnn_arguments {
    const void *q, *k, *v;
    void *o, *lse;
    const void *dout;
    void *dq, *dk, *dv;
    void *workspace;
} nd_cudnn_arguments;

/* Enqueues it in the stream. Errors: ND_EINTERNAL. */
nd_status nd_cudnn_run(nd_cudnn *cudnn, const nd_cudnn_plan *plan,
                       const nd_cudnn_arguments *arguments);

#ifdef __cplusplus
}
#endif
