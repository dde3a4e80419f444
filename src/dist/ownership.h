/* Ownership: which rank keeps the master weights and optimizer state of each parameter.
 *
 * Consecutive ranks form groups of equal size. Here ranks are members of a group: member m of every
 * group owns the same parameters and holds equal copies of them. With one group, members are ranks.
 *
 * Whole matrices are assigned by decreasing cost, each to the rank with the least cost so far
 * (Graham's longest-processing-time rule, at most 4/3 of the best makespan). A parameter that is
 * updated element by element may be owned by rows instead: every rank then owns consecutive rows,
 * in whole blocks. Every rank computes the same assignment without communication. */
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
    int *copies;    /* [2][count] rank that adds rounded gradients, then saver; NULL: one group */
    int groups;
} nd_ownership;

enum { ND_OWNED_BY_ROWS = -1 };

/* Rows of a parameter. */
typedef struct nd_row_span {
    int64_t first, count;
} nd_row_span;

/* Assigns parameters of cost cost[i] >= 0 to `ranks` members; the caller destroys it. Errors:
 * ND_ENOMEM. */
nd_status nd_ownership_create(const double *cost, int64_t count, int ranks, nd_ownership *own);
void nd_ownership_destroy(nd_ownership *own);

/* Distributes rows of parameter `index` over all ranks so that their loads become as equal as whole
 * blocks allow: consecutive ranks get consecutive blocks, some may get none. The parameter has
 * `rows` rows in blocks of `block` (the last may be shorter) and cost `cost`; its cost in
 * nd_ownership_create must have been 0. With one rank or one block the parameter's owner keeps all
 * rows. Errors: ND_ENOMEM. */
nd_status nd_ownership_share_rows(nd_ownership *own, int64_t index, int64_t rows, int64_t block,
                                  double cost);

/* The rows of parameter `index`, of `rows` rows, that `rank` owns; count 0: none. */
nd_row_span nd_ownership_span(const nd_ownership *own, int64_t index, int rank, int64_t rows);

/* The next rank after `rank` that owns some of parameter `index`; -1: none. Start with -1. */
int nd_ownership_next(const nd_ownership *own, int64_t index, int rank);

/* With `groups` groups of own->ranks ranks, distributes saving and the addition of rounded
 * gradients over all ranks: each parameter that is owned whole is saved by one of its owners, and
 * its rounded gradients are added by one rank, which may be any. `cost` as above. Errors:
 * ND_ENOMEM. */
nd_status nd_ownership_spread(nd_ownership *own, const double *cost, int groups);

/* Whether `rank`, of all groups, saves what it owns of parameter `index`. A parameter owned by rows
 * is saved by the ranks of the first group. */
bool nd_ownership_saves(const nd_ownership *own, int64_t index, int rank);

/* The rank, of all groups, that adds rounded gradients of member `owner` for parameter `index`. */
int nd_ownership_taker(const nd_ownership *own, int64_t index, int owner);

/* The rank, of all groups, whose file holds parameter `index`; 0 for one owned by rows. */
int nd_ownership_saver(const nd_ownership *own, int64_t index);
