#include "train/run_groups.h"

#include <stdio.h>

/* "1, 2, 4, 8": what divides the ranks. */
static void list_divisors(int ranks, char *text, size_t size)
{
    size_t used = 0;
    for (int group = 1; group <= ranks && used + 16 < size; group++)
        if (ranks % group == 0)
            used +=
                (size_t)snprintf(text + used, size - used, "%s%d", group > 1 ? ", " : "", group);
}

nd_status nd_run_choose_groups(nd_run *run)
{
    const int ranks = run->comm->size;
    const int64_t group = run->config.dist.group_ranks;
    char fit[256];
    list_divisors(ranks, fit, sizeof fit);
    if (group > 0 && ranks % group != 0)
        return ND_FAIL(ND_ECONFIG,
                       "[dist] group_ranks = %lld does not divide the %d ranks of this run; "
                       "%s would, or 0",
                       (long long)group, ranks, fit);
    run->comm->group_ranks = (int)group;
    return ND_OK;
}
