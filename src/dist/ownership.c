#include "dist/ownership.h"

#include <stdlib.h>
#include <string.h>

typedef struct item {
    double cost;
    int64_t index;
} item;

static int costliest_first(const void *left, const void *right)
{
    const item *a = left, *b = right;
    if (a->cost != b->cost)
        return a->cost < b->cost ? 1 : -1;
    return a->index < b->index ? -1 : a->index > b->index;
}

/* The least loaded of places first, first + step, ... below end gets `cost` more. */
static int least(double *load, int first, int step, int end, double cost)
{
    int found = first;
    for (int r = first + step; r < end; r += step)
        if (load[r] < load[found])
            found = r;
    load[found] += cost;
    return found;
}

static void assign(nd_ownership *own, const item *items, double *takes, double *saves)
{
    for (int64_t i = 0; i < own->count; i++) {
        const int64_t index = items[i].index;
        const double cost = items[i].cost;
        own->owner[index] = least(own->load, 0, 1, own->group, cost);
        own->taker[index] = least(takes, 0, 1, own->ranks, cost);
        own->saver[index] = least(saves, own->owner[index], own->group, own->ranks, cost);
    }
}

nd_status nd_ownership_create(const double *cost, int64_t count, int ranks, int group,
                              nd_ownership *own)
{
    *own = (nd_ownership){.count = count, .ranks = ranks, .group = group};
    own->owner = calloc(3 * (size_t)count, sizeof *own->owner);
    own->load = calloc((size_t)group, sizeof *own->load);
    double *others = calloc(2 * (size_t)ranks, sizeof *others);
    item *items = calloc((size_t)count, sizeof *items);
    nd_status status = ND_OK;
    if (!own->owner || !own->load || !others || !items) {
        status = ND_FAIL(ND_ENOMEM, "no memory to share %lld parameters among %d ranks",
                         (long long)count, ranks);
        nd_ownership_destroy(own);
        goto done;
    }
    own->taker = own->owner + count;
    own->saver = own->taker + count;
    for (int64_t i = 0; i < count; i++)
        items[i] = (item){cost[i], i};
    qsort(items, (size_t)count, sizeof *items, costliest_first);
    assign(own, items, others, others + ranks);
done:
    free(others);
    free(items);
    return status;
}

void nd_ownership_destroy(nd_ownership *own)
{
    free(own->owner);
    free(own->load);
    memset(own, 0, sizeof *own);
}

bool nd_ownership_has(const nd_ownership *own, int rank, int64_t index)
{
    return own->owner[index] == rank % own->group;
}

int nd_ownership_near(const nd_ownership *own, int rank, int64_t index)
{
    return rank - rank % own->group + own->owner[index];
}
