#include "dist/comm.h"
#include "dist/launcher.h"

nd_status nd_comm_create(nd_comm **comm)
{
    char library[128];
    nd_comm *made = NULL;
    ND_TRY(nd_launcher_has_mpi() ? nd_comm_create_mpi(&made) : nd_comm_create_solo(&made));
    nd_comm_library(library, sizeof library);
    ND_RETURN_MADE(nd_launcher_check(made->size, library), made, nd_comm_destroy, comm);
}

nd_status nd_comm_part(nd_comm *comm, nd_comm_subset of, nd_comm **part)
{
    nd_comm *made = NULL;
    ND_TRY(nd_comm_create_solo(&made));
    if (of.count > 1) {
        made->ops = (nd_comm_ops){.destroy = made->ops.destroy};
        made->host_ranks = 0;
    }
    made->rank = (comm->rank - of.first) / of.stride;
    made->size = of.count;
    made->local_rank = comm->local_rank;
    made->local_size = comm->local_size;
    if (of.stride == 1 && comm->host_ranks > 0 && of.first % comm->host_ranks == 0 &&
        of.count % comm->host_ranks == 0)
        made->host_ranks = comm->host_ranks;
    made->overlap = comm->overlap;
    made->threaded = comm->threaded;
    made->part_bytes = comm->part_bytes;
    made->grad_compression = comm->grad_compression;
    made->timeout_seconds = comm->timeout_seconds;
    made->stop_requested = comm->stop_requested;
    if (comm->ops.part) /* also for a part of one rank, because the other parts may have more */
        ND_TRY(comm->ops.part(comm, of, made));
    *part = made;
    return ND_OK;
}

void nd_comm_destroy(nd_comm *comm)
{
    if (comm)
        comm->ops.destroy(comm);
}
