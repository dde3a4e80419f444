#include "dist/gradient_transfer.h"

#include <stdlib.h>
#include <string.h>

enum { PART_FLOATS = ND_TRANSFER_PART_BYTES / 4 };

nd_status nd_gradient_transfer_create(nd_comm *comm, nd_wire *wire, nd_gradient_transfer *transfer)
{
    *transfer = (nd_gradient_transfer){comm, wire, malloc(ND_TRANSFER_PART_BYTES),
                                       malloc(ND_TRANSFER_PART_BYTES)};
    if (transfer->part && transfer->staged)
        return ND_OK;
    nd_gradient_transfer_destroy(transfer);
    return ND_FAIL(ND_ENOMEM, "no memory for the parts of a transfer");
}

void nd_gradient_transfer_destroy(nd_gradient_transfer *transfer)
{
    free(transfer->part);
    free(transfer->staged);
    memset(transfer, 0, sizeof *transfer);
}

nd_status nd_transfer_fetch(const nd_comm *comm, void *host, const void *device, size_t bytes)
{
    return comm->device->ops.download(comm->device, host, device, bytes);
}

nd_status nd_transfer_deliver(const nd_comm *comm, void *device, const void *host, size_t bytes)
{
    return comm->device->ops.upload(comm->device, device, host, bytes);
}

static nd_status receive_and_add(void *context, const nd_comm_piece *piece, int slot, int from)
{
    const nd_gradient_transfer *t = context;
    float *values = piece->slots[slot];
    for (int64_t first = 0; first < piece->count; first += PART_FLOATS) {
        const int64_t left = piece->count - first;
        const int part = (int)(left < PART_FLOATS ? left : PART_FLOATS);
        ND_TRY(nd_wire_receive(t->wire, t->part, (size_t)part * sizeof *values, from));
        float *restrict into = values + first;
        const float *restrict theirs = t->part;
        if (t->comm->device) {
            ND_TRY(nd_transfer_fetch(t->comm, t->staged, into, (size_t)part * sizeof *into));
            into = t->staged;
        }
        for (int i = 0; i < part; i++)
            into[i] += theirs[i];
        if (t->comm->device)
            ND_TRY(nd_transfer_deliver(t->comm, values + first, into, (size_t)part * sizeof *into));
    }
    return ND_OK;
}

static nd_status send_slot(void *context, const nd_comm_piece *piece, int slot, int to)
{
    const nd_gradient_transfer *t = context;
    const float *values = piece->slots[slot];
    if (!t->comm->device)
        return nd_wire_send(t->wire, values, (size_t)piece->count * sizeof *values, to);
    for (int64_t first = 0; first < piece->count; first += PART_FLOATS) {
        const int64_t left = piece->count - first;
        const size_t bytes = (size_t)(left < PART_FLOATS ? left : PART_FLOATS) * sizeof *values;
        ND_TRY(nd_transfer_fetch(t->comm, t->staged, values + first, bytes));
        ND_TRY(nd_wire_send(t->wire, t->staged, bytes, to));
    }
    return ND_OK;
}

nd_tree_transfer nd_gradient_transfer_of_tree(nd_gradient_transfer *transfer)
{
    return (nd_tree_transfer){
        .context = transfer, .send = send_slot, .receive_and_add = receive_and_add};
}
