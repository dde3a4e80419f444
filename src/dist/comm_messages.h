/* The comm contract over messages between two ranks, whatever carries them: a barrier is a dissemination, a
 * broadcast a binomial tree, an allgather Bruck's or a ring, a reduction the tree of core/base/sum_tree.h. */
#pragma once

#include "dist/transport.h"

/* How a job ends. */
typedef struct nd_comm_end {
    bool meets;          /* the ranks meet before they part; one that cannot aborts the job */
    void (*close)(void); /* after the last message; NULL: nothing to do */
    void (*abort)(nd_comm *comm, int exit_code);
    nd_status (*part)(nd_comm *comm, nd_comm_subset of, nd_comm *part); /* nd_comm_ops.part */
} nd_comm_end;

/* Collective. Fills comm->ops and comm->context, of a comm that has its rank and size and is on the heap; from
 * then on comm->ops.destroy frees it and the transport. On an error, which is ND_ENOMEM, both are freed. */
nd_status nd_comm_over_messages(nd_comm *comm, const char *name, nd_transport *transport,
                                nd_comm_end end);
