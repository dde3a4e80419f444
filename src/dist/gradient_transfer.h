/* Sends partial sums of the reduction tree in the format of their piece, and adds them where they arrive:
 * part by part, through host memory for data on a device. */
#ifndef ND_DIST_GRADIENT_TRANSFER_H
#define ND_DIST_GRADIENT_TRANSFER_H

#include "dist/point_to_point.h"
#include "dist/tree_reduction.h"

typedef struct nd_gradient_transfer {
    nd_comm *comm; /* not owned, nor is the wire */
    nd_wire *wire;
    float *staged;  /* [4 ND_WIRE_PART_BYTES] values of a part, where they lie on a device */
    void *residual; /* [ND_WIRE_PART_BYTES] likewise */
} nd_gradient_transfer;

/* Errors: ND_ENOMEM. */
nd_status nd_gradient_transfer_create(nd_comm *comm, nd_wire *wire, nd_gradient_transfer *transfer);
void nd_gradient_transfer_destroy(nd_gradient_transfer *transfer);

/* How nd_tree_reduce moves floats. */
nd_tree_transfer nd_gradient_transfer_of_tree(nd_gradient_transfer *transfer);

/* Between the host and comm->device, which there must be. */
nd_status nd_transfer_fetch(const nd_comm *comm, void *host, const void *device, size_t bytes);
nd_status nd_transfer_deliver(const nd_comm *comm, void *device, const void *host, size_t bytes);

#endif
