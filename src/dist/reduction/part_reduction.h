/* Many pieces through the tree of dist/reduction/tree_reduction.h at once, in parts.
 *
 * Parts of different pieces alternate, and so do the ranks that receive them. Every rank proceeds
 * level by level of the tree, and within a level part by part; up to ND_WIRE_DEPTH receives and as
 * many sends of the level are started ahead of its position. So both directions of a link are in
 * use, and a part is added while the next ones arrive.
 *
 * The order (level, part) is the same on all ranks, and a rank waits only for messages up to its
 * position: of all unfinished messages the first in this order has been started on both sides. So
 * ranks do not deadlock. */
#pragma once

#include "dist/comm_queue.h"
#include "dist/reduction/gradient_transfer.h"
#include "dist/transport/point_to_point.h"

typedef struct nd_part_reduction nd_part_reduction;

/* Neither comm nor wire is owned. Not collective. Errors: ND_ENOMEM. */
nd_status nd_part_reduction_create(nd_comm *comm, nd_wire *wire, nd_part_reduction **reduction);
void nd_part_reduction_destroy(nd_part_reduction *reduction);

/* nd_comm_ops.reduce_to_owners. `queue` is running it; NULL: the caller waits for it. */
nd_status nd_part_reduction_run(nd_part_reduction *reduction, nd_comm_queue *queue,
                                nd_comm_split split, nd_comm_piece *pieces, int64_t count);
