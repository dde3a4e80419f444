/* Ownership: which rank keeps the master weights and optimizer state of each parameter.
 *
 * Consecutive ranks form groups. Inside a group every parameter has one owner; the owners of a parameter in all groups
 * are the same member of theirs, and hold equal copies. One group of all ranks: one owner.
 *
 * Whole matrices are assigned by decreasing cost, each to the member with the least so far (Graham's
 * longest-processing-time rule, at most 4/3 of the best makespan). Every rank computes the same
 * assignment; nothing is exchanged. */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct nd_ownership {
    int64_t count;
    int ranks, group; /* ranks of a group */
    int *owner;       /* [count] member that owns parameter i, 0 to group - 1 */
    int *taker;       /* [count] rank that owned it in one group: where rounded sums are taken */
    int *saver;       /* [count] rank among its owners that saves it */
    double *load;     /* [group] summed cost */
} nd_ownership;

/* cost[i] >= 0 of parameter i's update; `group` divides `ranks`. */
nd_status nd_ownership_create(const double *cost, int64_t count, int ranks, int group,
                              nd_ownership *own);
void nd_ownership_destroy(nd_ownership *own);

/* Whether `rank` owns parameter `index`; and who does in the group of `rank`. */
bool nd_ownership_has(const nd_ownership *own, int rank, int64_t index);
int nd_ownership_near(const nd_ownership *own, int rank, int64_t index);
