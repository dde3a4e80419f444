/* Weights from every member of a group of ranks to all others of it, where the group is not all
 * ranks: those have NCCL's own broadcasts, in one launch too. */
#pragma once

#include "nccl_link.h"

#ifdef __cplusplus
extern "C" {
#endif

#include "dist/comm.h"

/* nd_comm_ops.broadcast_each_device, enqueued. Within a host each member sends to each other one,
 * all in one NCCL group. Across hosts they go around a ring, in groups that follow each other: in
 * round r a member sends its right neighbour what it took in round r - 1 and takes what the member
 * r to its left has, so that a host sends and takes everything about once. comm->bytes_sent counts
 * what is sent. Errors: those of the link. */
nd_status nd_nccl_weights_send(const nd_nccl_link *link, nd_comm *comm, void *const *buffers,
                               const size_t *bytes);

#ifdef __cplusplus
}
#endif
