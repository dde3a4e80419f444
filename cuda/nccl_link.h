/* What reductions and gathers between GPUs are made of: NCCL and kernels in one stream
 * (nccl_comm.cu), or an emulation of both (tests/cuda/emulated_nccl.h). Calls are enqueued and done
 * in their order; sends and receives only within a group. Each returns ND_EPEER or the error of a
 * launch. */
#pragma once

#include "gradient_wire.h"

#ifdef __cplusplus
extern "C" {
#endif

#include "dist/comm.h"

typedef struct nd_nccl_link {
    nd_status (*group_start)(void *context);
    nd_status (*group_end)(void *context);
    nd_status (*send)(void *context, const void *data, size_t bytes, int to);
    nd_status (*receive)(void *context, void *data, size_t bytes, int from);
    /* nd_cuda_gradient_encode and nd_cuda_gradient_add. */
    nd_status (*encode)(void *context, const nd_gradient_part *parts, int count);
    nd_status (*add)(void *context, const nd_gradient_part *parts, int count);
    void *context;
} nd_nccl_link;

/* nd_comm_ops.begin_exchange_device, enqueued: a group of its own. */
static inline nd_status nd_nccl_link_exchange(const nd_nccl_link *link, const nd_comm_exchange *x)
{
    ND_TRY(link->group_start(link->context));
    if (x->out_bytes > 0)
        ND_TRY(link->send(link->context, x->out, x->out_bytes, x->to));
    if (x->in_bytes > 0)
        ND_TRY(link->receive(link->context, x->in, x->in_bytes, x->from));
    return link->group_end(link->context);
}

#ifdef __cplusplus
}
#endif
