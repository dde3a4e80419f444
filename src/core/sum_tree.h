/* The tree that sums micro-batches, and over it the ranks.
 *
 * Node (lo, hi) of the tree over leaves lo..hi-1 splits at the largest power of two below hi - lo.
 * A rank that holds 2^k consecutive leaves, aligned, holds exactly a node; so the sum over all leaves
 * has the same shape, and the same bits, for every number of ranks that divides the micro-batches
 * into such parts.
 *
 * A rank adds its own leaves as a binary counter counts: leaf j is written into the buffer of level
 * trailing_ones(j), and the buffers of all lower levels, which then are full, are added to it. */
#ifndef ND_CORE_SUM_TREE_H
#define ND_CORE_SUM_TREE_H

#include <stdbool.h>
#include <stdint.h>

/* Level whose buffer leaf `index` is written into; levels below it are added to it afterwards. */
static inline int nd_sum_tree_level(int64_t index)
{
    int level = 0;
    for (; index & 1; index >>= 1)
        level++;
    return level;
}

/* Buffers needed for `count` leaves. */
static inline int nd_sum_tree_levels(int64_t count)
{
    int levels = 0;
    for (; count > 0; count >>= 1)
        levels++;
    return levels;
}

/* Whether level `level` is full after `count` leaves; the final sum folds the full levels from the
 * lowest up into the highest. */
static inline bool nd_sum_tree_full(int64_t count, int level)
{
    return (count >> level) & 1;
}

/* Leaves in the left child of a node of `count` leaves, count >= 2. */
static inline int64_t nd_sum_tree_left(int64_t count)
{
    int64_t left = 1;
    while (2 * left < count)
        left *= 2;
    return left;
}

/* Whether `ranks` equal parts of `leaves` leaves are nodes of the tree. */
static inline bool nd_sum_tree_splits(int64_t leaves, int64_t ranks)
{
    if (leaves % ranks != 0)
        return false;
    const int64_t part = leaves / ranks;
    return ranks == 1 || (part & (part - 1)) == 0;
}

#endif
