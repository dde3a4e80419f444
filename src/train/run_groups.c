#include "train/run_groups.h"

#include <stdio.h>
#include <stdlib.h>

/* "1, 2, 4, 8": what divides the ranks, and fits hosts where their sizes are given. */
static void list_fitting(int ranks, const int *sizes, int hosts, char *text, size_t size)
{
    size_t used = 0;
    for (int group = 1; group <= ranks && used + 16 < size; group++)
        if (ranks % group == 0 && (!sizes || nd_groups_fit_hosts(sizes, hosts, group)))
            used +=
                (size_t)snprintf(text + used, size - used, "%s%d", group > 1 ? ", " : "", group);
}

nd_status nd_run_choose_groups(nd_run *run)
{
    const int ranks = run->comm->size;
    const int64_t group = run->config.dist.group_ranks;
    char fitting[256];
    list_fitting(ranks, NULL, 0, fitting, sizeof fitting);
    if (group > 0 && ranks % group != 0)
        return ND_FAIL(ND_ECONFIG,
                       "[dist] group_ranks = %lld does not divide the %d ranks of this run; "
                       "%s would, or 0",
                       (long long)group, ranks, fitting);
    run->comm->group_ranks = (int)group;
    return ND_OK;
}

bool nd_groups_fit_hosts(const int *sizes, int hosts, int group)
{
    int begins = 0; /* the host at hand */
    for (int h = 0; h < hosts; begins += sizes[h++]) {
        const int ends = begins + sizes[h], first = begins / group, last = (ends - 1) / group;
        const bool whole = begins % group == 0 && ends % group == 0; /* groups within it */
        if (!whole && first != last)
            return false;
    }
    return true;
}

/* sizes[] of hosts, from where every rank stands on its own; 0: ranks of a host are not consecutive. */
static int hosts_of(const int *local, int ranks, int *sizes)
{
    int hosts = 0;
    for (int r = 0; r < ranks; r++) {
        if (local[r] == 0)
            sizes[hosts++] = 0;
        if (hosts == 0 || local[r] != sizes[hosts - 1]++)
            return 0;
    }
    return hosts;
}

nd_status nd_run_check_groups(const nd_config *config, nd_comm *comm)
{
    const int group = (int)config->dist.group_ranks;
    if (group == 0 || comm->size % group != 0)
        return ND_OK; /* or an error of nd_run_choose_groups */
    char fitting[256];
    int *local = calloc(2 * (size_t)comm->size, sizeof *local);
    if (!local)
        return ND_FAIL(ND_ENOMEM, "no memory for the hosts of %d ranks", comm->size);
    int *sizes = local + comm->size;
    nd_status status = comm->ops.allgather(comm, local, &comm->local_rank, sizeof *local);
    const int hosts = status == ND_OK ? hosts_of(local, comm->size, sizes) : 0;
    if (hosts > 0 && !nd_groups_fit_hosts(sizes, hosts, group)) {
        list_fitting(comm->size, sizes, hosts, fitting, sizeof fitting);
        status = nd_run_same_error(
            ND_FAIL(ND_ECONFIG,
                    "[dist] group_ranks = %d: some groups would begin or end inside of a host "
                    "that they go beyond, the first of %d hosts having %d ranks and the last %d; "
                    "%s would fit, or 0",
                    group, hosts, sizes[0], sizes[hosts - 1], fitting));
    }
    free(local);
    return status;
}
