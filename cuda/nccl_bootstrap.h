/* How ranks create NCCL's communicators: rank 0 makes the id and broadcasts it, or its failure,
 * through the host's comm; then all ranks open the communicator together, and those of each host
 * one of their own where there are several hosts with equally many consecutive ranks, more than
 * one, and every rank keeps the order of two communicators. Over a table of functions, so that the
 * order is tested without a GPU. */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

#include "dist/comm.h"

enum { ND_NCCL_ID_BYTES = 128, ND_NCCL_GPU_BYTES = 16 };

typedef struct nd_nccl_steps {
    nd_status (*open_library)(void *context);        /* every rank */
    nd_status (*name_gpu)(void *context, void *gpu); /* every rank: bytes no other GPU has */
    nd_status (*make_id)(void *context, void *id);   /* rank 0 */
    nd_status (*join)(void *context, const void *id, int size, int rank); /* every rank, together */
    bool (*keeps_order)(void *context); /* whether two communicators may be at work at once */
    nd_status (*join_host)(void *context, int host, int local_rank); /* every rank, together */
    void *context;
} nd_nccl_steps;

/* Collective. No rank joins unless every rank has the library and a GPU of its own, and rank 0 an
 * id: a rank that joined alone would wait for ever. Errors: those of the steps, on the rank they
 * happened; ND_EPEER on the others, naming the first rank that failed; ND_ECONFIG on all when two
 * have one GPU. */
nd_status nd_nccl_bootstrap(nd_comm *comm, const nd_nccl_steps *steps);

#ifdef __cplusplus
}
#endif
