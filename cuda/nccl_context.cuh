/* What the files of the NCCL comm share. */
#pragma once

#include "context.cuh"

#include "nccl_exchanges.h"
#include "nccl_functions.h"
#include "nccl_parts.h"

extern "C" {
#include "dist/comm.h"
}

struct nd_nccl_context {
    nccl_functions nccl;
    ncclComm_t comms[ND_NCCL_COMMUNICATORS]; /* of all ranks; of this host's, or NULL */
    nd_comm_ops base;                        /* the MPI comm's */
    void *base_context;
    nd_backend *backend;
    cudaStream_t streams[ND_NCCL_QUEUES];
    cudaEvent_t reached[ND_NCCL_QUEUES]; /* where another queue waits for this one */
    cudaEvent_t ready;                   /* the compute stream, where an exchange is begun */
    cudaEvent_t starts[ND_NCCL_EXCHANGES], ends[ND_NCCL_EXCHANGES];
    nd_nccl_exchanges exchanges;
    nd_nccl_parts parts;
    nd_comm *host;
};

/* Waits until a call that returned `code` is complete, at most `seconds`: a non-blocking
 * communicator answers "in progress". Polls for errors, and sleeps only when a call takes longer
 * than the microseconds of one with open connections. Errors: ND_EPEER; NCCL is then aborted. */
nd_status nd_nccl_settle(nd_nccl_context *c, nd_nccl_queue queue, ncclResult_t code,
                         const char *what, double seconds);

/* A call of NCCL. The first one between two ranks opens their connection and waits for that. */
#define ND_NCCL_TRY(c, queue, expression, what)                                                    \
    ND_TRY(nd_nccl_settle((c), (queue), (expression), (what), (c)->host->timeout_seconds))

/* Opens the library, streams, events and communicators. Collective over c->host. Errors: those of
 * nd_nccl_bootstrap. */
nd_status nd_nccl_join(nd_nccl_context *c);

/* The link of this comm: NCCL and the kernels of gradient_wire.h, in c->streams. */
nd_nccl_link nd_nccl_link_of(nd_nccl_context *c);

/* Enqueues a reduction; what ND_NCCL_ALL is given later comes after all of it. Collective. Errors:
 * those of nd_nccl_parts_reduce. */
nd_status nd_nccl_reduce_pieces(nd_nccl_context *c, nd_comm_split split, nd_comm_piece *pieces,
                                int64_t count);
