#include "dist/comm.h"

#include <stdlib.h>

/* Whether a launcher started this process as one of several: mpirun (PRRTE), srun with PMIx, or
 * another MPI's process manager. */
static bool started_by_launcher(void)
{
    static const char *const marks[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"};
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++)
        if (getenv(marks[i]))
            return true;
    return false;
}

nd_status nd_comm_create(nd_comm **comm)
{
    return started_by_launcher() ? nd_comm_create_mpi(comm) : nd_comm_create_solo(comm);
}

void nd_comm_set_device(nd_comm *comm, nd_backend *backend)
{
    comm->device = backend && !backend->ops.host_memory ? backend : NULL;
}

bool nd_comm_overlaps(const nd_comm *comm)
{
    return comm->overlap && comm->size > 1 && (comm->device ? comm->streamed : comm->threaded);
}

void nd_comm_destroy(nd_comm *comm)
{
    if (comm)
        comm->ops.destroy(comm);
}

void nd_comm_set_phase(nd_comm *comm, int64_t step, const char *phase)
{
    comm->step = step;
    comm->phase = phase;
}
