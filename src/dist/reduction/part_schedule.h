/* What one rank does in a reduction of several pieces: their parts (dist/reduction/part_order.h),
 * each walked through the tree (dist/reduction/tree_reduction.h), level by level.
 * dist/reduction/part_reduction.c carries it out with messages, cuda/nccl_parts.c with NCCL. */
#pragma once

#include "dist/reduction/part_order.h"
#include "dist/reduction/tree_reduction.h"

enum { ND_PART_LEVELS = 64 };

typedef struct nd_part_act {
    nd_tree_act tree;
    int64_t piece, number; /* of the part among all, in their order */
    /* Of the message in the piece's format, or in fp32 where it is a finished sum. */
    size_t at, bytes;
} nd_part_act;

typedef struct nd_part_schedule {
    nd_part_act *acts; /* [count] level by level of the tree, and within a level part by part */
    int64_t count;
    int64_t starts[ND_PART_LEVELS + 1]; /* of each level's acts, and where the last one's end */
    nd_part_order order;                /* of all parts from the first on, the same on all ranks */
    nd_part_act *walked;                /* [capacity] in the order of the walk */
    size_t capacity, acts_capacity;
    size_t *bytes; /* [pieces_capacity] of each piece on the wire */
    int *merged;   /* [pieces_capacity] of each piece */
    int64_t pieces_capacity;
} nd_part_schedule;

/* Replaces `schedule` (zeroed at first) by what comm->rank does with `pieces` in parts of
 * `part_bytes`; sets their results. The caller destroys it. Not collective. Errors: ND_ENOMEM. */
nd_status nd_part_schedule_make(nd_part_schedule *schedule, const nd_comm *comm, size_t part_bytes,
                                nd_comm_split split, nd_comm_piece *pieces, int64_t count);
void nd_part_schedule_destroy(nd_part_schedule *schedule);
