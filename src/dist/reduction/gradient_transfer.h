/* Sends partial sums of the reduction tree in the format of their piece, and adds them where they
 * arrive: part by part, through host memory for data on a device. */
#pragma once

#include "dist/comm.h"

typedef struct nd_gradient_transfer {
    nd_comm *comm;  /* not owned */
    float *staged;  /* [ND_WIRE_PART_BYTES] values of a part, if they are on a device */
    void *residual; /* [ND_WIRE_PART_BYTES] bytes, likewise */
} nd_gradient_transfer;

/* Errors: ND_ENOMEM; the caller destroys it then, too. */
nd_status nd_gradient_transfer_create(nd_comm *comm, nd_gradient_transfer *transfer);
void nd_gradient_transfer_destroy(nd_gradient_transfer *transfer);

/* A slot of a piece is one message; these handle its bytes [at, at + bytes), cut between blocks.
 * _add adds a received part, _take replaces the values with it (fp32), _make encodes a part to
 * send. */
nd_status nd_gradient_part_add(const nd_gradient_transfer *t, const nd_comm_piece *piece, int slot,
                               const void *part, size_t at, size_t bytes);
nd_status nd_gradient_part_take(const nd_gradient_transfer *t, const nd_comm_piece *piece, int slot,
                                const void *part, size_t at, size_t bytes);
nd_status nd_gradient_part_make(const nd_gradient_transfer *t, const nd_comm_piece *piece, int slot,
                                void *part, size_t at, size_t bytes);

/* Copy from comm->device, not NULL, to the host and back. */
nd_status nd_transfer_fetch(const nd_comm *comm, void *host, const void *device, size_t bytes);
nd_status nd_transfer_deliver(const nd_comm *comm, void *device, const void *host, size_t bytes);
