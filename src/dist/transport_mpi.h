/* Messages under MPI, with a deadline.
 *
 * A message carries the number and the kind of the collective it belongs to, in its tag: a rank that
 * is in another collective is found out by its first message. A rank that has waited comm->
 * timeout_seconds asks whom it waits for whom that one waits for, and so on, until one does not answer
 * or the chain closes; the error tells the chain. Ranks answer while they wait, so one that does not
 * is dead, stopped, or busy outside the wire. Time in which the waiting process itself was stopped
 * does not count. */
#pragma once

#include "dist/transport.h"

#include <mpi.h>

/* Between the ranks of `ranks`, which are those of `comm`; the transport owns it unless it is MPI_COMM_WORLD. Both
 * collective, the end (ops.destroy) unless something has failed; before MPI is finalized. Errors: ND_ENOMEM,
 * ND_EPEER. */
nd_status nd_transport_mpi_create(nd_comm *comm, MPI_Comm ranks, nd_transport **transport);
