/* NCCL for data on GPUs: takes over an MPI comm's reductions, broadcasts and exchanges of device
 * memory; those of host memory stay with MPI. No vendor types appear here.
 *
 * Gradients and codes move on streams of their own, ordered against the compute stream by events:
 * an exchange starts after the ops called before it, and ops called after `finish`,
 * reduce_to_owners or a broadcast start after the exchange. None of these makes the host wait.
 * Before the host waits for the device, it waits for the exchanges, with the comm's timeout
 * (nccl_exchanges.h); when that is exceeded, or NCCL reports an error, the communicator is aborted,
 * and that call and all later ones return ND_EPEER. docs/gpu.md says what has run. */
#pragma once

#include "core/backend/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

#include "dist/comm.h"

/* From now on `comm`, whose device is `backend` (a CUDA backend), uses NCCL. Sums keep the tree of
 * reduce_to_owners unless the split allows any order (deterministic = off): then they are NCCL's
 * own reductions. Collective. Errors: ND_EINTERNAL when the library is missing, ND_ECONFIG when two
 * ranks share a GPU, ND_EPEER. */
nd_status nd_nccl_attach(nd_comm *comm, nd_backend *backend);

/* Gives the operations back to MPI; does nothing for a comm without NCCL. Call it before memory of
 * the backend is released. Collective unless there was an error: then exchanges in flight are
 * aborted. */
void nd_nccl_detach(nd_comm *comm);

#ifdef __cplusplus
}
#endif
