/* The parts of a reduction of several pieces, in their order within a level of the tree: part k of
 * every piece, then part k + 1 (dist/reduction/part_reduction.c; train/plan/cost_model.c predicts
 * it). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct nd_part {
    int64_t piece, index; /* the index-th part of a piece */
    size_t at, bytes;     /* where it begins in the piece, and how long it is */
    int64_t turn;         /* of dist/reduction/tree_reduction.h */
} nd_part;

enum { ND_PART_TURNS = 64 };

typedef struct nd_part_order {
    const size_t *bytes; /* [count] of the pieces on the wire; not owned */
    const int *merged;   /* [count] the pieces' `merged` (dist/comm.h); NULL: all 0; not owned */
    int64_t count, piece, index;
    size_t size, longest;
    size_t before[ND_PART_TURNS]; /* bytes of parts so far, by `merged` % ND_PART_TURNS */
    bool more;
} nd_part_order;

/* Bytes of a part where messages have at most `part_bytes`: fewer for rounded parts, whose values
 * must fit in a message in fp32. */
size_t nd_reduction_part_bytes(size_t part_bytes, bool rounds);

/* Starts the order of the parts, of `size` bytes, of these pieces. Turns count bytes in units of
 * the longest part, so that short parts among long ones do not always fall to the same ranks;
 * merged reductions count separately, so that merging changes no rank's share. */
nd_part_order nd_part_order_of(const size_t *bytes, const int *merged, int64_t count, size_t size);

/* The next part; false at the end. */
bool nd_part_next(nd_part_order *order, nd_part *part);
