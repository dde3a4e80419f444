/* Attention with cuDNN's graph interface: one execution plan per shape and direction, created when
 * a shape is first used and kept. No vendor types appear here.
 *
 * Causal attention of sequences of one length over their own keys, in bf16 with f32 statistics, in
 * the layout of core/backend/backend.h: tokens x heads x head_dim. A shape that cuDNN does not
 * support, or for which its bits are not reproducible, is refused with a reason; the caller then
 * uses other kernels. */
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

/* Opens cuDNN for the current device, of compute capability `capability` (90 is 9.0), for work in
 * `stream` (a cudaStream_t). The caller destroys the result. Errors: ND_EINTERNAL when the library
 * is missing, lacks a function or is too old. */
nd_status nd_cudnn_create(void *stream, int capability, nd_cudnn **cudnn);

/* The same for a described device that need not be present: plans can be created but not run.
 * `json`: cuDNN's description of a device (CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION). */
nd_status nd_cudnn_create_described(const char *json, int capability, nd_cudnn **cudnn);
void nd_cudnn_destroy(nd_cudnn *cudnn);

/* Why a cuDNN version is not used for a shape on a device, even if its engines support it; NULL: it
 * may be used. */
const char *nd_cudnn_refuses(int64_t version, int capability, const nd_cudnn_shape *shape);

/* The part of a shape that a plan computes at once: in the forward pass all of it; in the backward
 * pass as many sequences, or heads of one sequence, as have room in `bytes` for their ds [length,
 * length]. Returns false when not even one head of k and v does. */
bool nd_cudnn_part(const nd_cudnn_shape *shape, int64_t bytes, nd_cudnn_shape *part);

/* The plan of a shape, owned by `cudnn` and created when the shape is new. A refused shape has a
 * plan, too, with an nd_cudnn_plan_reason. Errors: ND_ENOMEM. */
nd_status nd_cudnn_plan_for(nd_cudnn *cudnn, const nd_cudnn_shape *shape, nd_cudnn_plan **plan);

/* The plan of a shape that was used before; NULL for a new one. */
nd_cudnn_plan *nd_cudnn_plan_known(const nd_cudnn *cudnn, const nd_cudnn_shape *shape);

/* Why the shape is refused; NULL when the plan can be run. */
const char *nd_cudnn_plan_reason(const nd_cudnn_plan *plan);

/* Refuses the shape from now on, for this reason. */
void nd_cudnn_plan_reject(nd_cudnn_plan *plan, const char *reason);

/* Bytes of workspace in device memory that the plan needs, aligned to 256; the number of its
 * engine. */
size_t nd_cudnn_plan_workspace(const nd_cudnn_plan *plan);
int64_t nd_cudnn_plan_engine(const nd_cudnn_plan *plan);

/* Inputs and outputs of a plan: q, o, dout, dq bf16 [tokens, heads*head_dim]; k, v, dk, dv bf16
 * [tokens, kv_heads*head_dim]; lse f32 [tokens, heads]. o and lse are outputs forward and inputs
 * backward; the last four belong to the backward pass. Addresses are multiples of 16 (lse:
 * of 4). */
typedef struct nd_cudnn_arguments {
    const void *q, *k, *v;
    void *o, *lse;
    const void *dout;
    void *dq, *dk, *dv;
    void *workspace;
} nd_cudnn_arguments;

/* Enqueues the plan in the stream. Errors: ND_EINTERNAL. */
nd_status nd_cudnn_run(nd_cudnn *cudnn, const nd_cudnn_plan *plan,
                       const nd_cudnn_arguments *arguments);

#ifdef __cplusplus
}
#endif
