/* Reductions of gradients: NCCL's own, or parts up the tree in any wire format. */
#include "nccl_context.cuh"

extern "C" {
#include "dist/reduction/gradient_wire.h"
}

#include <stdlib.h>

namespace
{

nd_nccl_context *of(void *context)
{
    return static_cast<nd_nccl_context *>(context);
}

nd_status group_start(void *context, nd_nccl_queue queue)
{
    ND_NCCL_TRY(of(context), queue, of(context)->nccl.group_start(), "exchanging between GPUs");
    return ND_OK;
}

nd_status group_end(void *context, nd_nccl_queue queue)
{
    ND_NCCL_TRY(of(context), queue, of(context)->nccl.group_end(), "exchanging between GPUs");
    return ND_OK;
}

/* The peer's rank in the queue's communicator. */
int peer_in(const nd_nccl_context *c, nd_nccl_queue queue, int peer)
{
    return queue == ND_NCCL_HOST ? peer - (c->host->rank - c->host->local_rank) : peer;
}

nd_status send(void *context, nd_nccl_queue queue, const void *data, size_t bytes, int to)
{
    nd_nccl_context *c = of(context);
    ND_NCCL_TRY(c, queue,
                c->nccl.send(data, bytes, ncclChar, peer_in(c, queue, to), c->comms[queue],
                             c->streams[queue]),
                "sending between GPUs");
    return ND_OK;
}

nd_status receive(void *context, nd_nccl_queue queue, void *data, size_t bytes, int from)
{
    nd_nccl_context *c = of(context);
    ND_NCCL_TRY(c, queue,
                c->nccl.receive(data, bytes, ncclChar, peer_in(c, queue, from), c->comms[queue],
                                c->streams[queue]),
                "receiving between GPUs");
    return ND_OK;
}

nd_status encode(void *context, nd_nccl_queue queue, const nd_gradient_part *parts, int count)
{
    return nd_cuda_gradient_encode(of(context)->streams[queue], parts, count);
}

nd_status add(void *context, nd_nccl_queue queue, const nd_gradient_part *parts, int count)
{
    return nd_cuda_gradient_add(of(context)->streams[queue], parts, count);
}

nd_status order(void *context, nd_nccl_queue first, nd_nccl_queue second)
{
    nd_nccl_context *c = of(context);
    ND_CUDA_TRY(cudaEventRecord(c->reached[first], c->streams[first]));
    ND_CUDA_TRY(cudaStreamWaitEvent(c->streams[second], c->reached[first], 0));
    return ND_OK;
}

/* In NCCL's own order of additions: to the owner, or to all. */
nd_status reduce_in_any_order(nd_nccl_context *c, nd_comm_piece *p)
{
    nd_comm *comm = c->host;
    float *values = p->slots[0];
    const size_t count = (size_t)p->count;
    const uint64_t bytes = (uint64_t)p->count * sizeof *values;
    if (comm->reduction == ND_REDUCTION_ALLREDUCE) {
        /* What a ring sends: every rank all parts but one, twice. */
        comm->bytes_sent += 2 * bytes * (uint64_t)(comm->size - 1) / (uint64_t)comm->size;
        ND_NCCL_TRY(c, ND_NCCL_ALL,
                    c->nccl.all_reduce(values, values, count, ncclFloat, ncclSum,
                                       c->comms[ND_NCCL_ALL], c->streams[ND_NCCL_ALL]),
                    "reducing gradients");
    } else {
        if (comm->rank != p->owner)
            comm->bytes_sent += bytes;
        ND_NCCL_TRY(c, ND_NCCL_ALL,
                    c->nccl.reduce(values, values, count, ncclFloat, ncclSum, p->owner,
                                   c->comms[ND_NCCL_ALL], c->streams[ND_NCCL_ALL]),
                    "reducing gradients");
    }
    p->result = nd_comm_member(comm) == p->owner ? values : NULL;
    return ND_OK;
}

/* NCCL adds in its own order, and exact values alone; to one owner, so not where there
 * are groups. */
bool adds_by_itself(const nd_comm *comm, const nd_comm_piece *piece)
{
    return piece->format == ND_GRADIENT_WIRE_FP32 &&
           (nd_comm_group(comm) == comm->size || comm->reduction == ND_REDUCTION_ALLREDUCE);
}

/* Those that NCCL does not add by itself, as one reduction. */
nd_status reduce_others(nd_nccl_context *c, nd_comm_split split, nd_comm_piece *pieces,
                        int64_t count)
{
    int64_t others = 0, at = 0;
    nd_comm_piece *list = static_cast<nd_comm_piece *>(calloc((size_t)count + 1, sizeof *list));
    ND_FAIL_IF(!list, ND_ENOMEM, "no memory for a reduction of %lld pieces", (long long)count);
    for (int64_t i = 0; i < count; i++)
        if (!adds_by_itself(c->host, &pieces[i]))
            list[others++] = pieces[i];
    const nd_status status =
        others > 0 ? nd_nccl_parts_reduce(&c->parts, split, list, others) : ND_OK;
    for (int64_t i = 0; i < count; i++)
        if (!adds_by_itself(c->host, &pieces[i]))
            pieces[i].result = list[at++].result;
    free(list);
    return status;
}

} // namespace

nd_nccl_link nd_nccl_link_of(nd_nccl_context *c)
{
    const bool by_host = c->comms[ND_NCCL_HOST] != NULL;
    return {by_host, group_start, group_end, send, receive, encode, add, order, c};
}

nd_status nd_nccl_reduce_pieces(nd_nccl_context *c, nd_comm_split split, nd_comm_piece *pieces,
                                int64_t count)
{
    if (!split.any_order)
        return nd_nccl_parts_reduce(&c->parts, split, pieces, count);
    ND_TRY(group_start(c, ND_NCCL_ALL));
    for (int64_t i = 0; i < count; i++)
        if (adds_by_itself(c->host, &pieces[i]))
            ND_TRY(reduce_in_any_order(c, &pieces[i]));
    ND_TRY(group_end(c, ND_NCCL_ALL));
    return reduce_others(c, split, pieces, count);
}
