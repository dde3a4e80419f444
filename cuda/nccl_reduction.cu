/* Reductions of gradients: NCCL's own, or parts up the tree in any wire format. */
#include "nccl_context.cuh"

#include "gradient_wire.h"

extern "C" {
#include "dist/gradient_wire.h"
#include "dist/tree_reduction.h"
}

namespace
{

__global__ void add_part_kernel(float *into, const float *from, int64_t count)
{
    ND_GRID_LOOP(i, count)
    into[i] += from[i];
}

/* Values of a part: whole blocks of the format, and with them of its residual. */
int64_t part_values(nd_gradient_wire format)
{
    switch (format) {
    case ND_GRADIENT_WIRE_FP32:
        break;
    case ND_GRADIENT_WIRE_BF16:
    case ND_GRADIENT_WIRE_INT8:
    case ND_GRADIENT_WIRE_INT4:
        return nd_gradient_wire_values(format, (size_t)ND_NCCL_PART_FLOATS);
    }
    return ND_NCCL_PART_FLOATS;
}

/* In the exchange stream's order, so that one scratch serves all parts, in both directions. */
nd_status send_slot(void *context, const nd_comm_piece *piece, int slot, int to)
{
    nd_nccl_context *c = static_cast<nd_nccl_context *>(context);
    const nd_gradient_wire format = piece->format;
    const float *values = piece->slots[slot];
    char *residual = static_cast<char *>(piece->residual);
    c->host->bytes_sent += nd_gradient_wire_bytes(format, piece->count);
    for (int64_t first = 0; first < piece->count; first += part_values(format)) {
        const int64_t length = nd_min(piece->count - first, part_values(format));
        const void *out = values + first;
        if (format != ND_GRADIENT_WIRE_FP32) {
            void *kept = residual ? residual + nd_gradient_residual_bytes(format, first) : NULL;
            out = c->part;
            ND_TRY(
                nd_cuda_gradient_encode(c->stream, format, c->part, values + first, kept, length));
        }
        ND_NCCL_TRY(c,
                    c->nccl.send(out, nd_gradient_wire_bytes(format, length), ncclChar, to, c->comm,
                                 c->stream),
                    "sending gradients");
    }
    return ND_OK;
}

/* Two slots of this rank, on the exchange stream so that the order holds. */
nd_status add_slots(void *context, float *into, const float *from, int64_t count)
{
    nd_nccl_context *c = static_cast<nd_nccl_context *>(context);
    ND_CUDA_TRY(ND_LAUNCH(add_part_kernel, dim3(nd_blocks_for(count, 256, 4096)), dim3(256), 0,
                          c->stream, into, from, count));
    return ND_OK;
}

nd_status receive_and_add(void *context, const nd_comm_piece *piece, int slot, int from)
{
    nd_nccl_context *c = static_cast<nd_nccl_context *>(context);
    const nd_gradient_wire format = piece->format;
    float *values = piece->slots[slot];
    for (int64_t first = 0; first < piece->count; first += part_values(format)) {
        const int64_t length = nd_min(piece->count - first, part_values(format));
        ND_NCCL_TRY(c,
                    c->nccl.receive(c->part, nd_gradient_wire_bytes(format, length), ncclChar, from,
                                    c->comm, c->stream),
                    "receiving gradients");
        if (format != ND_GRADIENT_WIRE_FP32)
            ND_TRY(nd_cuda_gradient_add(c->stream, format, values + first, c->part, length));
        else
            ND_TRY(add_slots(c, values + first, c->part, length));
    }
    return ND_OK;
}

/* A finished sum from another rank. */
nd_status take_slot(void *context, const nd_comm_piece *piece, int slot, int from)
{
    nd_nccl_context *c = static_cast<nd_nccl_context *>(context);
    const int64_t part = part_values(ND_GRADIENT_WIRE_FP32);
    for (int64_t first = 0; first < piece->count; first += part)
        ND_NCCL_TRY(c,
                    c->nccl.receive(piece->slots[slot] + first,
                                    (size_t)nd_min(piece->count - first, part) * sizeof(float),
                                    ncclChar, from, c->comm, c->stream),
                    "receiving gradients");
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
        ND_NCCL_TRY(
            c, c->nccl.all_reduce(values, values, count, ncclFloat, ncclSum, c->comm, c->stream),
            "reducing gradients");
    } else {
        if (comm->rank != p->owner)
            comm->bytes_sent += bytes;
        ND_NCCL_TRY(
            c,
            c->nccl.reduce(values, values, count, ncclFloat, ncclSum, p->owner, c->comm, c->stream),
            "reducing gradients");
    }
    p->result = nd_comm_member(comm) == p->owner ? values : NULL;
    return ND_OK;
}

/* NCCL adds in its own order, and exact values alone; to one owner, so not where there are groups. */
bool adds_by_itself(const nd_comm *comm, nd_comm_split split, const nd_comm_piece *piece)
{
    return split.any_order && piece->format == ND_GRADIENT_WIRE_FP32 &&
           (nd_comm_group(comm) == comm->size || comm->reduction == ND_REDUCTION_ALLREDUCE);
}

} // namespace

nd_status nd_nccl_reduce_pieces(nd_nccl_context *c, nd_comm_split split, nd_comm_piece *pieces,
                                int64_t count)
{
    const nd_tree_transfer transfer = {c, send_slot, receive_and_add, take_slot, add_slots};
    int64_t i = 0;
    while (i < count) {
        if (!adds_by_itself(c->host, split, &pieces[i])) {
            ND_TRY(nd_tree_reduce(c->host, &transfer, split, &pieces[i++]));
            continue;
        }
        /* One launch for as many as there are in a row. */
        ND_NCCL_TRY(c, c->nccl.group_start(), "reducing gradients");
        for (; i < count && adds_by_itself(c->host, split, &pieces[i]); i++)
            ND_TRY(reduce_in_any_order(c, &pieces[i]));
        ND_NCCL_TRY(c, c->nccl.group_end(), "reducing gradients");
    }
    return ND_OK;
}
