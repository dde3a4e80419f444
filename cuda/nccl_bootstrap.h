/* How ranks create NCCL's communicators. Rank 0 makes the id and broadcasts it, or its failure,
 * through the host's comm; then all ranks join one communicator together. The ranks of each host
 * also join one of their own if there are several hosts with equally many consecutive ranks, more
 * than one each, and NCCL keeps the order of two communicators on every rank. The steps are a table
 * of functions, so that their order can be tested without a GPU. */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

#include "dist/comm.h"

enum { ND_NCCL_ID_BYTES = 128, ND_NCCL_GPU_BYTES = 16 };

typedef struct nd_nccl_steps {
    nd_status (*open_library)(void *context);        /* every rank */
    nd_status (*name_gpu)(void *context, void *gpu); /* every rank: bytes that no other GPU has */
    nd_status (*make_id)(void *context, void *id);   /* rank 0 */
    nd_status (*join)(void *context, const void *id, int size, int rank); /* every rank, together */
    bool (*keeps_order)(void *context); /* whether NCCL keeps the order of two communicators */
    nd_status (*join_host)(void *context, int host, int local_rank); /* every rank, together */
    void *context;
} nd_nccl_steps;

/* Runs the steps. No rank joins unless every rank has the library and a GPU of its own, and rank 0
 * an id: a rank that joined alone would wait for ever. Collective. Errors: those of a step, on the
 * rank where it failed; ND_EPEER on the others, naming the first rank that failed; ND_ECONFIG on
 * all ranks when two share a GPU. */
nd_status nd_nccl_bootstrap(nd_comm *comm, const nd_nccl_steps *steps);

#ifdef __cplusplus
}
#endif
