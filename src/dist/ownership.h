/* Ownership: which rank keeps the master weights and optimizer state of each parameter.
 *
 * Whole matrices are assigned by decreasing cost, each to the rank with the least so far (Graham's
 * longest-processing-time rule, at most 4/3 of the best makespan). Every rank computes the same
 * assignment; nothing is exchanged. */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct nd_ownership {
    int64_t count;
    int ranks;
    int *owner;   /* [count] rank that owns parameter i */
    double *load; /* [ranks] summed cost */
} nd_ownership;

/* cost[i] >= 0 of parameter i's update. */
nd_status nd_ownership_create(const double *cost, int64_t count, int ranks, nd_ownership *own);
void nd_ownership_destroy(nd_ownership *own);
