/* Many pieces through the tree of dist/tree_reduction.h at once, in parts.
 *
 * Parts of different pieces take turns, so that the ranks that take them do too. Every rank works off what it does
 * level by level of the tree, and within a level part by part; up to ND_WIRE_DEPTH receives and as many sends of the
 * level are started ahead of where it stands. So both directions of a link are in use, and a part is added while the
 * next ones arrive.
 *
 * The order (level, part) is the same on all ranks, and a rank waits only for messages up to where it stands: of
 * all messages that are not done the first in this order has been started on both sides. So ranks do not wait in a
 * circle. */
#pragma once

#include "dist/gradient_transfer.h"
#include "dist/point_to_point.h"

typedef struct nd_part_reduction nd_part_reduction;

/* Neither comm nor wire is owned. Not collective. Errors: ND_ENOMEM. */
nd_status nd_part_reduction_create(nd_comm *comm, nd_wire *wire, nd_part_reduction **reduction);
void nd_part_reduction_destroy(nd_part_reduction *reduction);

/* nd_comm_ops.reduce_to_owners. */
nd_status nd_part_reduction_run(nd_part_reduction *reduction, nd_comm_split split,
                                nd_comm_piece *pieces, int64_t count);
