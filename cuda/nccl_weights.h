/* Sends weights from every member of a group to all others of it, where there are several groups. A
 * single one has NCCL's own broadcasts, in one launch too. */
#pragma once

#include "nccl_link.h"

#ifdef __cplusplus
extern "C" {
#endif

#include "dist/comm.h"

/* Enqueues nd_comm_ops.broadcast_each_device. Within a host each member sends to every other one,
 * all in one NCCL group. Across hosts the weights go around a ring, one NCCL group per round: in
 * round r a member sends its right neighbor what it received in round r - 1 and receives the
 * weights of the member r places to its left, so that a host sends and receives everything about
 * once. Adds to comm->bytes_sent. Collective. Errors: those of the link. */
nd_status nd_nccl_weights_send(const nd_nccl_link *link, nd_comm *comm, void *const *buffers,
                               const size_t *bytes);

#ifdef __cplusplus
}
#endif
