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

nd_status nd_ownership_create(const double *cost, int64_t count, int ranks, nd_ownership *own)
{
    *own = (nd_ownership){.count = count, .ranks = ranks};
    own->owner = calloc((size_t)count, sizeof *own->owner);
    own->load = calloc((size_t)ranks, sizeof *own->load);
    item *items = calloc((size_t)count, sizeof *items);
    if (!own->owner || !own->load || !items) {
        free(items);
        nd_ownership_destroy(own);
        return ND_FAIL(ND_ENOMEM, "no memory to share %lld parameters among %d ranks",
                       (long long)count, ranks);
    }
    for (int64_t i = 0; i < count; i++)
        items[i] = (item){cost[i], i};
    qsort(items, (size_t)count, sizeof *items, costliest_first);
    for (int64_t i = 0; i < count; i++) {
        int least = 0;
        for (int r = 1; r < ranks; r++)
            if (own->load[r] < own->load[least])
                least = r;
        own->owner[items[i].index] = least;
        own->load[least] += items[i].cost;
    }
    free(items);
    return ND_OK;
}

void nd_ownership_destroy(nd_ownership *own)
{
    free(own->owner);
    free(own->load);
    memset(own, 0, sizeof *own);
}
