/* Ownership: which rank keeps the master weights and optimizer state of each parameter.
 *
 * Consecutive ranks form groups, of the same size. Here ranks are members of a group: what member m owns, member m of
 * every group owns, and they hold equal copies. With one group members are ranks.
 *
 * Whole matrices are assigned by decreasing cost, each to the rank with the least so far (Graham's
 * longest-processing-time rule, at most 4/3 of the best makespan). A parameter that is updated element by element
 * may be owned by rows instead: every rank then has consecutive rows of it, in whole blocks. Every rank computes the
 * same assignment; nothing is exchanged. */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct nd_ownership {
    int64_t count;
    int ranks;
    int *owner;     /* [count] rank that owns parameter i, or ND_OWNED_BY_ROWS */
    int64_t **rows; /* [count] NULL, or [ranks + 1]: rank r has rows [rows[i][r], rows[i][r+1]) */
    double *load;   /* [ranks] summed cost */
    int *copies;    /* [2][count] of nd_ownership_spread; NULL: there is one group */
    int groups;
} nd_ownership;

enum { ND_OWNED_BY_ROWS = -1 };

/* Rows of a parameter. */
typedef struct nd_row_span {
    int64_t first, count;
} nd_row_span;

/* cost[i] >= 0 of parameter i's update. */
nd_status nd_ownership_create(const double *cost, int64_t count, int ranks, nd_ownership *own);
void nd_ownership_destroy(nd_ownership *own);

/* Gives rows of parameter `index`, of `rows` in blocks of `block` (the last may be short), to all ranks, so that their
 * loads become as equal as whole blocks allow: consecutive ranks have consecutive blocks, some have none. Replaces
 * its owner, whose cost must have been 0; its cost is `cost` now. Nothing changes with one rank or one block.
 * Errors: ND_ENOMEM. */
nd_status nd_ownership_share_rows(nd_ownership *own, int64_t index, int64_t rows, int64_t block,
                                  double cost);

/* What `rank` has of parameter `index`, of `rows` rows: count 0 where it has nothing. */
nd_row_span nd_ownership_span(const nd_ownership *own, int64_t index, int rank, int64_t rows);

/* The first rank after `rank` that has something of parameter `index`; -1: none. From -1 on, all its owners. */
int nd_ownership_next(const nd_ownership *own, int64_t index, int rank);

/* For `groups` groups of own->ranks ranks: parameters that are owned whole are saved by one of their owners each, so
 * that ranks save alike, and their rounded gradients are taken where they are in one group. `cost` as above. Errors:
 * ND_ENOMEM. */
nd_status nd_ownership_spread(nd_ownership *own, const double *cost, int groups);

/* Whether `rank` of all ranks saves what it has of parameter `index`: of rows, each member of the first group. */
bool nd_ownership_saves(const nd_ownership *own, int64_t index, int rank);

/* The rank of all ranks that takes rounded gradients of what member `owner` owns of parameter `index`. */
int nd_ownership_taker(const nd_ownership *own, int64_t index, int owner);

/* The rank of all ranks whose file has parameter `index`. */
int nd_ownership_saver(const nd_ownership *own, int64_t index);
