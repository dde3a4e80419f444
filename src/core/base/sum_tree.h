/* The tree that sums micro-batches, wherever they are computed.
 *
 * Node (a, b) of the tree over leaves 0..n-1 splits at the largest power of two below b - a. So
 * every aligned block of 2^k leaves is a node, and a rank that holds any consecutive leaves holds a
 * few whole nodes: the maximal aligned blocks of its part, at most 2 log2(n) of them. It adds up
 * the leaves of each block in a buffer of its own (a slot); then the ranks add the blocks up the
 * tree (dist/reduction/tree_reduction.h). The sum has the same shape, and the same bits, for every
 * number of ranks. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Leaves in the left child of a node of `count` leaves, count >= 2. */
static inline int64_t nd_sum_tree_left(int64_t count)
{
    int64_t left = 1;
    while (2 * left < count)
        left *= 2;
    return left;
}

/* Slots are a stack: each leaf is pushed, and two neighboring blocks of equal size on top are
 * merged, the upper added to the lower. The number of merges after leaf `leaf` of a part that
 * starts at leaf `first`. */
static inline int nd_sum_tree_merges(int64_t first, int64_t leaf)
{
    int merges = 0;
    while ((leaf + 1) % ((int64_t)2 << merges) == 0 && leaf + 1 - ((int64_t)2 << merges) >= first)
        merges++;
    return merges;
}

/* The most slots in use at once while the leaves of part [first, end) are pushed and merged. */
static inline int nd_sum_tree_slots(int64_t first, int64_t end)
{
    int depth = 0, max_depth = 0;
    for (int64_t leaf = first; leaf < end; leaf++) {
        depth++;
        max_depth = depth > max_depth ? depth : max_depth;
        depth -= nd_sum_tree_merges(first, leaf);
    }
    return max_depth;
}

/* Whether (a, b) is an aligned block of a power of two of leaves. */
static inline bool nd_sum_tree_is_block(int64_t a, int64_t b)
{
    const int64_t size = b - a;
    return (size & (size - 1)) == 0 && a % size == 0;
}

/* The slot in which part [first, end) holds its maximal block that starts at `start`; -1: none. */
static inline int nd_sum_tree_slot(int64_t first, int64_t end, int64_t start)
{
    int slot = 0;
    for (int64_t at = first; at < end; slot++) {
        int64_t size = 1;
        while (at % (2 * size) == 0 && at + 2 * size <= end)
            size *= 2;
        if (at == start)
            return slot;
        at += size;
    }
    return -1;
}
