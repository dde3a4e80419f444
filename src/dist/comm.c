#include "dist/comm.h"

#include "dist/launcher.h"
#include "dist/wire_sizes.h"

#include <stdio.h>
#include <stdlib.h>

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

static void destroy_stand_in(nd_comm *comm)
{
    free(comm);
}

nd_status nd_comm_part(nd_comm *comm, nd_comm_subset of, nd_comm **part)
{
    nd_comm *made = NULL;
    if (of.count == 1) {
        ND_TRY(nd_comm_create_solo(&made));
    } else {
        made = calloc(1, sizeof *made);
        ND_FAIL_IF(!made, ND_ENOMEM, "no memory for a communicator of %d ranks", of.count);
        made->ops.destroy = destroy_stand_in;
    }
    made->rank = (comm->rank - of.first) / of.stride;
    made->size = of.count;
    made->local_rank = comm->local_rank;
    made->local_size = comm->local_size;
    made->overlap = comm->overlap;
    made->threaded = comm->threaded;
    made->part_bytes = comm->part_bytes;
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

nd_status nd_comm_broadcast_each(nd_comm *comm, void *const *buffers, const size_t *bytes)
{
    nd_status (*each)(nd_comm *, void *const *, const size_t *) =
        comm->device ? comm->ops.broadcast_each_device : comm->ops.broadcast_each;
    if (each)
        return each(comm, buffers, bytes);
    for (int m = 0; m < nd_comm_group(comm); m++)
        ND_TRY(comm->ops.broadcast_device(comm, buffers[m], bytes[m], m));
    return ND_OK;
}

int nd_comm_group(const nd_comm *comm)
{
    return comm->group_ranks > 0 ? comm->group_ranks : comm->size;
}

int nd_comm_group_first(const nd_comm *comm)
{
    return comm->rank - nd_comm_member(comm);
}

int nd_comm_member(const nd_comm *comm)
{
    return comm->rank % nd_comm_group(comm);
}

bool nd_groups_fit_hosts(const int *sizes, int hosts, int group)
{
    int begins = 0; /* first rank of host h */
    for (int h = 0; h < hosts; begins += sizes[h++]) {
        const int ends = begins + sizes[h], first = begins / group, last = (ends - 1) / group;
        const bool whole = begins % group == 0 && ends % group == 0; /* groups within it */
        if (!whole && first != last)
            return false;
    }
    return true;
}

nd_status nd_groups_check(int ranks, const int *sizes, int hosts, int group)
{
    char fitting[256];
    size_t used = 0;
    if (ranks % group == 0 && nd_groups_fit_hosts(sizes, hosts, group))
        return ND_OK;
    for (int g = 1; g <= ranks && used + 16 < sizeof fitting; g++)
        if (ranks % g == 0 && nd_groups_fit_hosts(sizes, hosts, g))
            used += (size_t)snprintf(fitting + used, sizeof fitting - used, "%s%d",
                                     g > 1 ? ", " : "", g);
    ND_FAIL_IF(ranks % group != 0, ND_ECONFIG,
               "[dist] group_ranks = %d does not divide the %d ranks of this run; %s would, or 0",
               group, ranks, fitting);
    return ND_FAIL(ND_ECONFIG,
                   "[dist] group_ranks = %d: some groups would begin or end inside of a host "
                   "that they go beyond, the first of %d hosts having %d ranks and the last %d; "
                   "%s would fit, or 0",
                   group, hosts, sizes[0], sizes[hosts - 1], fitting);
}

size_t nd_wire_part_bytes(const nd_comm *comm)
{
    return comm->part_bytes > 0 ? comm->part_bytes : ND_WIRE_PART_BYTES;
}

void nd_comm_set_phase(nd_comm *comm, int64_t step, const char *phase)
{
    comm->step = step;
    comm->phase = phase;
}
