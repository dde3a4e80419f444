#include "dist/reduction/gradient_transfer.h"

#include "dist/reduction/gradient_wire.h"
#include "dist/transport/wire_sizes.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* A format takes at least a byte a value. */
enum { STAGED_BYTES = ND_WIRE_PART_BYTES * sizeof(float) };

static_assert(ND_WIRE_PART_BYTES % ND_WIRE_BLOCK_BYTES == 0, "parts are cut between blocks");

nd_status nd_gradient_transfer_create(nd_comm *comm, nd_gradient_transfer *transfer)
{
    *transfer = (nd_gradient_transfer){comm, malloc(STAGED_BYTES), malloc(ND_WIRE_PART_BYTES)};
    return ND_CHECK(transfer->staged && transfer->residual, ND_ENOMEM,
                    "no memory for the parts of a transfer");
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

nd_status nd_gradient_part_add(const nd_gradient_transfer *t, const nd_comm_piece *piece, int slot,
                               const void *part, size_t at, size_t bytes)
{
    const nd_gradient_wire format = piece->format;
    const int64_t count = nd_gradient_wire_values(format, bytes);
    float *values = piece->slots[slot] + nd_gradient_wire_values(format, at), *into = values;
    if (t->comm->device) {
        ND_TRY(nd_transfer_fetch(t->comm, t->staged, values, (size_t)count * sizeof *values));
        into = t->staged;
    }
    nd_gradient_wire_add(format, into, part, count);
    return t->comm->device
               ? nd_transfer_deliver(t->comm, values, into, (size_t)count * sizeof *values)
               : ND_OK;
}

nd_status nd_gradient_part_take(const nd_gradient_transfer *t, const nd_comm_piece *piece, int slot,
                                const void *part, size_t at, size_t bytes)
{
    char *values = (char *)piece->slots[slot] + at;
    if (t->comm->device)
        return nd_transfer_deliver(t->comm, values, part, bytes);
    memcpy(values, part, bytes);
    return ND_OK;
}

nd_status nd_gradient_part_make(const nd_gradient_transfer *t, const nd_comm_piece *piece, int slot,
                                void *part, size_t at, size_t bytes)
{
    const nd_gradient_wire format = piece->format;
    const int64_t first = nd_gradient_wire_values(format, at);
    const int64_t count = nd_gradient_wire_values(format, bytes);
    const float *values = piece->slots[slot] + first;
    char *kept = piece->residual, *residual = NULL;
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
