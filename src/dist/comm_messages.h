/* The comm contract implemented with messages between pairs of ranks over any transport: a barrier
 * is a dissemination, a broadcast a binomial tree, an allgather Bruck's algorithm or a ring, a
 * reduction the tree of core/base/sum_tree.h. */
#pragma once

#include "dist/transport/transport.h"

/* How the implementation below shuts down. */
typedef struct nd_comm_shutdown {
    bool synchronizes;   /* synchronize the ranks first; a rank that cannot aborts the job */
    void (*close)(void); /* called after the last message; NULL: nothing to do */
    void (*abort)(nd_comm *comm, int exit_code);
    nd_status (*part)(nd_comm *comm, nd_comm_subset of, nd_comm *part); /* nd_comm_ops.part */
} nd_comm_shutdown;

/* Fills comm->ops and comm->context of a heap-allocated comm that has its rank and size;
 * comm->ops.destroy frees the comm and the transport from then on. On an error both are freed.
 * Collective. Errors: ND_ENOMEM. */
nd_status nd_comm_over_messages(nd_comm *comm, const char *name, nd_transport *transport,
                                nd_comm_shutdown end);
