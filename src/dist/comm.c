#include "dist/comm.h"

#include "dist/launcher.h"

nd_status nd_comm_create(nd_comm **comm)
{
    char library[128];
    ND_TRY(nd_launcher_has_mpi() ? nd_comm_create_mpi(comm) : nd_comm_create_solo(comm));
    nd_comm_library(library, sizeof library);
    const nd_status status = nd_launcher_check((*comm)->size, library);
    if (status != ND_OK) {
        nd_comm_destroy(*comm);
        *comm = NULL;
    }
    return status;
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
