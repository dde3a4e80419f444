/* NCCL for what lies on GPUs: takes over reductions and broadcasts of device memory of an MPI comm,
 * which keeps everything that lies in host memory. No vendor types here.
 *
 * Gradients and codes move on a stream of their own, ordered against the compute stream by events:
 * every exchange comes after the ops called before it, and `finish`, reduce_to_owners and the
 * broadcasts let the ops that follow come after the exchange. None of them makes the host wait.
 * Before the host waits for the device, it waits for exchanges with the comm's deadline
 * (nccl_exchanges.h); when that is over, or NCCL reports an error, the communicator is aborted, and
 * that call and all later ones return ND_EPEER. docs/gpu.md says what has run. */
#pragma once

#include "core/backend/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

#include "dist/comm.h"

/* Collective over `comm`, whose device is `backend` (a CUDA backend). Sums keep the tree of
 * reduce_to_owners unless the split allows any order (deterministic = off): then they are NCCL's
 * own reductions. Errors: ND_EINTERNAL when the library is missing, ND_EPEER. */
nd_status nd_nccl_attach(nd_comm *comm, nd_backend *backend);

/* Gives the operations back; does nothing for a comm without NCCL. Collective unless an error came
 * before: then what is on its way is ended. To be called before memory of the backend
 * is released. */
void nd_nccl_detach(nd_comm *comm);

#ifdef __cplusplus
}
#endif
