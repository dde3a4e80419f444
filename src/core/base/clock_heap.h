/* A heap of indices by the clock of each: the earliest first, among equals the lowest index. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

typedef struct nd_clock_heap {
    int count;
    int *list;         /* with space for every index */
    const void *clock; /* of index 0: a double */
    size_t stride;     /* bytes from one clock to the next */
} nd_clock_heap;

static inline bool nd_clock_before(const nd_clock_heap *h, int a, int b)
{
    const char *clocks = h->clock;
    const double left = *(const double *)(const void *)(clocks + (size_t)a * h->stride);
    const double right = *(const double *)(const void *)(clocks + (size_t)b * h->stride);
    return left < right || (left == right && a < b);
}

static inline void nd_clock_push(nd_clock_heap *h, int index)
{
    int i = h->count++;
    for (; i > 0 && nd_clock_before(h, index, h->list[(i - 1) / 2]); i = (i - 1) / 2)
        h->list[i] = h->list[(i - 1) / 2];
    h->list[i] = index;
}

static inline int nd_clock_pop(nd_clock_heap *h)
{
    const int first = h->list[0], moved = h->list[--h->count];
    int i = 0;
    for (int child = 1; child < h->count; child = 2 * i + 1) {
        if (child + 1 < h->count && nd_clock_before(h, h->list[child + 1], h->list[child]))
            child++;
        if (!nd_clock_before(h, h->list[child], moved))
            break;
        h->list[i] = h->list[child];
        i = child;
    }
    h->list[i] = moved;
    return first;
}
