/* NCCL for what lies on GPUs: takes over reduce_to_owners and broadcast_device of an MPI comm, which
 * keeps everything that lies in host memory. No vendor types here.
 *
 * Gradients and codes move on a stream of their own, ordered against the compute stream by events.
 * Waiting for them polls NCCL's errors: when a peer is gone, the communicator is aborted and the call
 * returns ND_EPEER. docs/gpu.md says what has run. */
#ifndef ND_CUDA_NCCL_COMM_H
#define ND_CUDA_NCCL_COMM_H

#include "core/backend.h"
#include "dist/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Collective over `comm`, whose device is `backend` (a CUDA backend). Sums keep the tree of
 * reduce_to_owners where the split has more leaves than ranks; with one leaf a rank (deterministic =
 * off) they are NCCL's own reductions. Errors: ND_EINTERNAL when the library is missing, ND_EPEER. */
nd_status nd_nccl_attach(nd_comm *comm, nd_backend *backend);

/* Gives the operations back; does nothing for a comm without NCCL. Collective unless an error came
 * before. */
void nd_nccl_detach(nd_comm *comm);

#ifdef __cplusplus
}
#endif

#endif
