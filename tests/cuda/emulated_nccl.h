/* NCCL's groups, sends and receives between ranks that are fibers of one process
 * (dist/simulation/fibers.h), and the kernels between them done by the host. Each queue of a rank
 * is a fiber, too, and works off what its rank enqueues after delays that a seed draws, so that
 * queues run in many orders. It is an error of every rank, and none hangs, where
 *   - the sends of a rank to another in their groups at hand are not its receives, in number, order
 *     and bytes;
 *   - no rank can go on, as when a message has no partner in any group;
 *   - what one queue writes overlaps memory that another uses at the same time, or what a group
 *     receives other memory of the group;
 *   - a message is outside a group, or a kernel inside one, or a group has more than 2048 messages.
 */
#pragma once

#include "nccl_link.h"

typedef struct nd_emulated_nccl nd_emulated_nccl;

typedef struct nd_emulated_machine {
    int ranks;
    int local; /* consecutive ranks that have a communicator of their own; 0: none */
    unsigned seed;
    bool one_by_one; /* a rank begins no group before all are done that it was given earlier */
} nd_emulated_machine;

/* What a rank has done. */
typedef struct nd_emulated_counts {
    int groups, both_ways; /* with messages; of those, with sends and receives */
    int within;            /* groups of ranks of a host */
    int messages, largest; /* in all; of the largest group */
    int encodes, adds;     /* launches */
    int beside;            /* begun while another queue was at work */
} nd_emulated_counts;

/* What a rank does; its error is that of the run. */
typedef nd_status (*nd_emulated_rank)(nd_emulated_nccl *nccl, int rank, void *context);

/* Runs `main` once on every rank. `counts` [ranks] may be NULL. Errors: of the rank that failed
 * first; ND_ENOMEM. */
nd_status nd_emulated_nccl_run(nd_emulated_machine machine, nd_emulated_rank main, void *context,
                               nd_emulated_counts *counts);

/* The link of a rank, within a run. */
nd_nccl_link nd_emulated_nccl_link(nd_emulated_nccl *nccl, int rank);

/* Waits until the rank's queues are empty. */
nd_status nd_emulated_nccl_wait(const nd_nccl_link *link);
