#include "dist/gradient_transfer.h"

#include <stdlib.h>
#include <string.h>

nd_status nd_gradient_transfer_create(nd_comm *comm, nd_wire *wire, nd_gradient_transfer *transfer)
{
    *transfer = (nd_gradient_transfer){comm, wire, malloc(ND_TRANSFER_PART_BYTES)};
    if (transfer->staged)
        return ND_OK;
    return ND_FAIL(ND_ENOMEM, "no memory for the parts of a transfer");
}

void nd_gradient_transfer_destroy(nd_gradient_transfer *transfer)
{
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

/* A slot on its way, part by part. */
typedef struct moving {
    const nd_gradient_transfer *transfer;
    float *values;
} moving;

static nd_status add_part(void *context, void *part, size_t at, size_t bytes)
{
    const moving *m = context;
    const nd_gradient_transfer *t = m->transfer;
    float *restrict into = m->values + at / sizeof *into;
    const float *restrict theirs = part;
    if (t->comm->device) {
        ND_TRY(nd_transfer_fetch(t->comm, t->staged, into, bytes));
        into = t->staged;
    }
    for (size_t i = 0; i < bytes / sizeof *into; i++)
        into[i] += theirs[i];
    return t->comm->device
               ? nd_transfer_deliver(t->comm, m->values + at / sizeof *into, into, bytes)
               : ND_OK;
}

static nd_status fetch_part(void *context, void *part, size_t at, size_t bytes)
{
    const moving *m = context;
    return nd_transfer_fetch(m->transfer->comm, part, m->values + at / sizeof(float), bytes);
}

static nd_status receive_and_add(void *context, const nd_comm_piece *piece, int slot, int from)
{
    const nd_gradient_transfer *t = context;
    moving m = {t, piece->slots[slot]};
    return nd_wire_receive_parts(t->wire, add_part, &m, (size_t)piece->count * sizeof *m.values,
                                 from);
}

static nd_status send_slot(void *context, const nd_comm_piece *piece, int slot, int to)
{
    const nd_gradient_transfer *t = context;
    moving m = {t, piece->slots[slot]};
    const size_t bytes = (size_t)piece->count * sizeof *m.values;
    if (!t->comm->device)
        return nd_wire_send(t->wire, m.values, bytes, to);
    return nd_wire_send_parts(t->wire, fetch_part, &m, bytes, to);
}

nd_tree_transfer nd_gradient_transfer_of_tree(nd_gradient_transfer *transfer)
{
    return (nd_tree_transfer){
        .context = transfer, .send = send_slot, .receive_and_add = receive_and_add};
}
