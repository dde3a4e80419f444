/* Sends every rank's buffer to all other ranks of its group, around a ring. */
#pragma once

#include "dist/transport/point_to_point.h"

/* nd_comm_ops.broadcast_each. A rank sends its own parts to its right neighbor, then hands on what
 * comes from the left one. With N ranks and B bytes in all this takes about N alpha + B beta
 * seconds (dist/simulation/links.h); each rank sends about B bytes, and of consecutive ranks on a
 * host one sends to another host and one receives from one.
 *
 * In round i a rank takes its i-th part and has started its i-th send: what it hands on came in an
 * earlier round, or in the same one where it has nothing of its own. So a rank in the earliest
 * round can always continue. Sends may be ND_WIRE_DEPTH rounds ahead: otherwise a part would need
 * as many rounds for its way around as there are ranks with parts of their own.
 *
 * `rank` counts within the group of `size` ranks from rank `first` on. */
nd_status nd_ring_broadcast_each(nd_wire *wire, int rank, int size, int first, void *const *buffers,
                                 const size_t *bytes);
