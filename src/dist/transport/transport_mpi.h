/* Messages under MPI with a timeout.
 *
 * The tag of a message holds the number and kind of its collective, so that a rank in another
 * collective is detected by its first message. A rank that has waited for comm->timeout_seconds
 * asks its peer whom that waits for, then the next, until one does not answer or the chain closes;
 * the error reports the chain. Ranks answer while they wait, so a rank that does not answer is
 * dead, stopped, or busy outside communication. Time in which the waiting process itself was
 * stopped does not count. */
#pragma once

#include "dist/transport/transport.h"

#include <mpi.h>

/* Creates a transport between the ranks of `ranks`, which are those of `comm`, and owns that
 * communicator unless it is MPI_COMM_WORLD. Creating and destroying are collective, destroying
 * unless a message has failed; both must happen before MPI_Finalize. Errors: ND_ENOMEM,
 * ND_EPEER. */
nd_status nd_transport_mpi_create(nd_comm *comm, MPI_Comm ranks, nd_transport **transport);
