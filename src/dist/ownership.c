#include "dist/ownership.h"

#include <math.h>
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

static item *sorted(const double *cost, int64_t count)
{
    item *items = calloc((size_t)count, sizeof *items);
    for (int64_t i = 0; items && i < count; i++)
        items[i] = (item){cost[i], i};
    if (items)
        qsort(items, (size_t)count, sizeof *items, costliest_first);
    return items;
}

/* Adds `cost` to the least loaded of first, first + step, ... below `end`. */
static int least(double *load, int first, int step, int end, double cost)
{
    int found = first;
    for (int r = first + step; r < end; r += step)
        if (load[r] < load[found])
            found = r;
    load[found] += cost;
    return found;
}

nd_status nd_ownership_create(const double *cost, int64_t count, int ranks, nd_ownership *own)
{
    *own = (nd_ownership){.count = count, .ranks = ranks, .groups = 1};
    own->owner = calloc((size_t)count, sizeof *own->owner);
    own->rows = calloc((size_t)count, sizeof *own->rows);
    own->load = calloc((size_t)ranks, sizeof *own->load);
    ND_AUTOFREE item *items = sorted(cost, count);
    if (!own->owner || !own->rows || !own->load || !items) {
        nd_ownership_destroy(own);
        return ND_FAIL(ND_ENOMEM, "no memory to share %lld parameters among %d ranks",
                       (long long)count, ranks);
    }
    for (int64_t i = 0; i < count; i++)
        own->owner[items[i].index] = least(own->load, 0, 1, ranks, items[i].cost);
    return ND_OK;
}

nd_status nd_ownership_spread(nd_ownership *own, const double *cost, int groups)
{
    const int all = groups * own->ranks;
    ND_AUTOFREE double *takes = calloc(2 * (size_t)all, sizeof *takes);
    ND_AUTOFREE item *items = sorted(cost, own->count);
    own->copies = calloc(2 * (size_t)own->count, sizeof *own->copies);
    ND_FAIL_IF(!takes || !items || !own->copies, ND_ENOMEM, "no memory for %d groups of ranks",
               groups);
    for (int64_t i = 0; i < own->count; i++) {
        const int64_t index = items[i].index;
        const int owner = own->rows[index] ? 0 : own->owner[index];
        own->copies[index] = least(takes, 0, 1, all, items[i].cost);
        own->copies[own->count + index] = least(takes + all, owner, own->ranks, all, items[i].cost);
    }
    own->groups = groups;
    return ND_OK;
}

int nd_ownership_saver(const nd_ownership *own, int64_t index)
{
    if (own->rows[index])
        return 0;
    return own->copies ? own->copies[own->count + index] : own->owner[index];
}

bool nd_ownership_saves(const nd_ownership *own, int64_t index, int rank)
{
    return own->rows[index] ? rank < own->ranks : nd_ownership_saver(own, index) == rank;
}

int nd_ownership_taker(const nd_ownership *own, int64_t index, int owner)
{
    if (own->rows[index])
        return (int)((index + owner) % own->groups) * own->ranks + owner;
    return own->copies ? own->copies[index] : owner;
}

/* The load up to which less loaded ranks must be filled to distribute `cost`. */
static double level_of(const nd_ownership *own, double cost)
{
    double low = own->load[0], high = own->load[0];
    for (int r = 1; r < own->ranks; r++) {
        low = fmin(low, own->load[r]);
        high = fmax(high, own->load[r]);
    }
    high += cost;
    double before = -1.0, middle = high;
    for (int i = 0; i < 200 && middle != before; i++) { /* to the last bit */
        before = middle;
        middle = low + (high - low) / 2.0;
        double room = 0.0;
        for (int r = 0; r < own->ranks; r++)
            room += fmax(0.0, middle - own->load[r]);
        *(room < cost ? &low : &high) = middle;
    }
    return high;
}

nd_status nd_ownership_share_rows(nd_ownership *own, int64_t index, int64_t rows, int64_t block,
                                  double cost)
{
    const int64_t blocks = (rows + block - 1) / block;
    if (own->ranks == 1 || blocks == 1) {
        own->load[own->owner[index]] += cost;
        return ND_OK;
    }
    int64_t *bounds = calloc((size_t)own->ranks + 1, sizeof *bounds);
    ND_FAIL_IF(!bounds, ND_ENOMEM, "no memory to share %lld rows among %d ranks", (long long)rows,
               own->ranks);
    const double level = level_of(own, cost);
    double before = 0.0;
    for (int r = 0; r < own->ranks; r++) {
        before += fmax(0.0, level - own->load[r]);
        const int64_t upto =
            cost > 0.0 ? llrint((double)blocks * before / cost) : (r + 1) * blocks / own->ranks;
        bounds[r + 1] = upto >= blocks || r + 1 == own->ranks ? rows : upto * block;
    }
    for (int r = 0; r < own->ranks; r++)
        own->load[r] += cost * (double)(bounds[r + 1] - bounds[r]) / (double)rows;
    own->owner[index] = ND_OWNED_BY_ROWS;
    own->rows[index] = bounds;
    return ND_OK;
}

nd_row_span nd_ownership_span(const nd_ownership *own, int64_t index, int rank, int64_t rows)
{
    const int64_t *bounds = own->rows[index];
    if (bounds)
        return (nd_row_span){bounds[rank], bounds[rank + 1] - bounds[rank]};
    return (nd_row_span){0, own->owner[index] == rank ? rows : 0};
}

int nd_ownership_next(const nd_ownership *own, int64_t index, int rank)
{
    const int64_t *bounds = own->rows[index];
    if (!bounds)
        return rank < own->owner[index] ? own->owner[index] : -1;
    while (++rank < own->ranks)
        if (bounds[rank + 1] > bounds[rank])
            return rank;
    return -1;
}

void nd_ownership_destroy(nd_ownership *own)
{
    for (int64_t i = 0; own->rows && i < own->count; i++)
        free(own->rows[i]);
    free(own->rows);
    free(own->owner);
    free(own->load);
    free(own->copies);
    memset(own, 0, sizeof *own);
}
