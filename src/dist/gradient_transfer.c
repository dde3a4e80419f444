#include "dist/gradient_transfer.h"

#include "dist/gradient_wire.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* A format takes at least a byte a value. */
enum { STAGED_BYTES = ND_WIRE_PART_BYTES * sizeof(float) };

static_assert(ND_WIRE_PART_BYTES % ND_WIRE_BLOCK_BYTES == 0, "parts are cut between blocks");

nd_status nd_gradient_transfer_create(nd_comm *comm, nd_wire *wire, nd_gradient_transfer *transfer)
{
    *transfer =
        (nd_gradient_transfer){comm, wire, malloc(STAGED_BYTES), malloc(ND_WIRE_PART_BYTES)};
    if (transfer->staged && transfer->residual)
        return ND_OK;
    nd_gradient_transfer_destroy(transfer);
    return ND_FAIL(ND_ENOMEM, "no memory for the parts of a transfer");
}

void nd_gradient_transfer_destroy(nd_gradient_transfer *transfer)
{
    free(transfer->staged);
    free(transfer->residual);
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

/* A slot being sent, part by part. */
typedef struct moving {
    const nd_gradient_transfer *transfer;
    const nd_comm_piece *piece;
    float *values;
} moving;

/* Adds bytes [at, at + bytes) of a message. */
static nd_status add_part(void *context, void *part, size_t at, size_t bytes)
{
    const moving *m = context;
    const nd_gradient_transfer *t = m->transfer;
    const nd_gradient_wire format = m->piece->format;
    const int64_t count = nd_gradient_wire_values(format, bytes);
    float *values = m->values + nd_gradient_wire_values(format, at), *into = values;
    if (t->comm->device) {
        ND_TRY(nd_transfer_fetch(t->comm, t->staged, values, (size_t)count * sizeof *values));
        into = t->staged;
    }
    nd_gradient_wire_add(format, into, part, count);
    return t->comm->device
               ? nd_transfer_deliver(t->comm, values, into, (size_t)count * sizeof *values)
               : ND_OK;
}

/* Makes bytes [at, at + bytes) of a message. */
static nd_status make_part(void *context, void *part, size_t at, size_t bytes)
{
    const moving *m = context;
    const nd_gradient_transfer *t = m->transfer;
    const nd_gradient_wire format = m->piece->format;
    const int64_t first = nd_gradient_wire_values(format, at);
    const int64_t count = nd_gradient_wire_values(format, bytes);
    const float *values = m->values + first;
    char *kept = m->piece->residual, *residual = NULL;
    const size_t kept_bytes = nd_gradient_residual_bytes(format, count);
    if (kept)
        residual = kept += nd_gradient_residual_bytes(format, first);
    if (t->comm->device) {
        ND_TRY(nd_transfer_fetch(t->comm, t->staged, values, (size_t)count * sizeof *values));
        values = t->staged;
    }
    if (t->comm->device && kept) {
        ND_TRY(nd_transfer_fetch(t->comm, t->residual, kept, kept_bytes));
        residual = t->residual;
    }
    nd_gradient_wire_encode(format, part, values, residual, count);
    return t->comm->device && kept ? nd_transfer_deliver(t->comm, kept, residual, kept_bytes)
                                   : ND_OK;
}

static nd_status receive_and_add(void *context, const nd_comm_piece *piece, int slot, int from)
{
    const nd_gradient_transfer *t = context;
    moving m = {t, piece, piece->slots[slot]};
    return nd_wire_receive_parts(t->wire, add_part, &m,
                                 nd_gradient_wire_bytes(piece->format, piece->count), from);
}

static nd_status send_slot(void *context, const nd_comm_piece *piece, int slot, int to)
{
    const nd_gradient_transfer *t = context;
    moving m = {t, piece, piece->slots[slot]};
    const size_t bytes = nd_gradient_wire_bytes(piece->format, piece->count);
    if (piece->format == ND_GRADIENT_WIRE_FP32 && !t->comm->device)
        return nd_wire_send(t->wire, m.values, bytes, to);
    return nd_wire_send_parts(t->wire, make_part, &m, bytes, to);
}

nd_tree_transfer nd_gradient_transfer_of_tree(nd_gradient_transfer *transfer)
{
    return (nd_tree_transfer){
        .context = transfer, .send = send_slot, .receive_and_add = receive_and_add};
}
