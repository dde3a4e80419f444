#include "dist/comm.h"

#include "dist/transport/wire_sizes.h"

#include <stdio.h>
#include <stdlib.h>

void nd_comm_set_device(nd_comm *comm, nd_backend *backend)
{
    comm->device = backend && !backend->ops.host_memory ? backend : NULL;
}

bool nd_comm_overlaps(const nd_comm *comm)
{
    return comm->overlap && comm->size > 1 && (comm->device ? comm->streamed : comm->threaded);
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
                   "[dist] group_ranks = %d: groups of %d ranks would straddle hosts, the first of "
                   "%d hosts having %d ranks and the last %d; "
                   "%s would fit, or 0",
                   group, group, hosts, sizes[0], sizes[hosts - 1], fitting);
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

bool nd_comm_fails_alone(const nd_comm *comm, nd_status status)
{
    return status != ND_OK && status != ND_ESTOPPED && comm->size > 1 && !nd_error_get()->shared;
}

nd_status nd_comm_agree(nd_comm *comm, nd_status mine)
{
    ND_AUTOFREE int *all = calloc((size_t)comm->size, sizeof *all);
    ND_FAIL_IF(!all, ND_ENOMEM, "no memory for the status of %d ranks", comm->size);
    const int code = (int)mine;
    int failed = 0;
    ND_TRY(comm->ops.allgather(comm, all, &code, sizeof code));
    while (failed < comm->size && all[failed] == ND_OK)
        failed++;
    if (failed == comm->size)
        return ND_OK;
    nd_error error = *nd_error_get();
    ND_TRY(comm->ops.broadcast(comm, &error, sizeof error, failed));
    nd_error named = error;
    if (comm->size > 1 && !error.shared)
        snprintf(named.message, sizeof named.message, "rank %d: %.1900s", failed, error.message);
    nd_error_set(&named);
    return nd_error_mark_shared((nd_status)all[failed]);
}
