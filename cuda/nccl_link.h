/* What reductions and gathers between GPUs are made of: calls of NCCL and kernels in queues
 * (nccl_reduction.cu), or an emulation of both (tests/cuda/emulated_nccl.h). Calls are enqueued and
 * return at once; a queue runs them in their order. Sends and receives must be in a group. Errors:
 * ND_EPEER, those of a launch. */
#pragma once

#include "gradient_wire.h"

#ifdef __cplusplus
extern "C" {
#endif

#include "dist/comm.h"

/* Each queue for messages has a communicator of its own. */
typedef enum nd_nccl_queue {
    ND_NCCL_ALL,      /* messages between any two ranks */
    ND_NCCL_HOST,     /* messages between ranks of a host */
    ND_NCCL_ALL_ADDS, /* additions of what ND_NCCL_ALL received */
    ND_NCCL_HOST_ADDS /* additions of what ND_NCCL_HOST received */
} nd_nccl_queue;
enum { ND_NCCL_COMMUNICATORS = 2, ND_NCCL_QUEUES = 4 };

typedef struct nd_nccl_link {
    bool by_host; /* ND_NCCL_HOST exists; otherwise it is given nothing */
    nd_status (*group_start)(void *context, nd_nccl_queue queue);
    nd_status (*group_end)(void *context, nd_nccl_queue queue);
    /* Peers are ranks of the comm in every queue. */
    nd_status (*send)(void *context, nd_nccl_queue queue, const void *data, size_t bytes, int to);
    nd_status (*receive)(void *context, nd_nccl_queue queue, void *data, size_t bytes, int from);
    /* nd_cuda_gradient_encode and nd_cuda_gradient_add. */
    nd_status (*encode)(void *context, nd_nccl_queue queue, const nd_gradient_part *parts,
                        int count);
    nd_status (*add)(void *context, nd_nccl_queue queue, const nd_gradient_part *parts, int count);
    /* What queue `second` is given from now on runs after all that `first` has been given. */
    nd_status (*order)(void *context, nd_nccl_queue first, nd_nccl_queue second);
    void *context;
} nd_nccl_link;

/* Enqueues nd_comm_ops.begin_exchange_device as a group of its own. */
static inline nd_status nd_nccl_link_exchange(const nd_nccl_link *link, const nd_comm_exchange *x)
{
    ND_TRY(link->group_start(link->context, ND_NCCL_ALL));
    if (x->out_bytes > 0)
        ND_TRY(link->send(link->context, ND_NCCL_ALL, x->out, x->out_bytes, x->to));
    if (x->in_bytes > 0)
        ND_TRY(link->receive(link->context, ND_NCCL_ALL, x->in, x->in_bytes, x->from));
    return link->group_end(link->context, ND_NCCL_ALL);
}

#ifdef __cplusplus
}
#endif
