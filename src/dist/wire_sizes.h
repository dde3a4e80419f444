/* How the MPI comm cuts what it moves: known to the comm, and to whoever predicts its time
 * (train/plan/plan_cost.c). */
#ifndef ND_DIST_WIRE_SIZES_H
#define ND_DIST_WIRE_SIZES_H

#include <stddef.h>
#include <stdint.h>

enum {
    /* A long message moves in parts of so many bytes: small enough to stay in cache while they are
     * added, large enough that latency does not count. */
    ND_WIRE_PART_BYTES = 1 << 18,
    /* Parts in flight at once in each direction. */
    ND_WIRE_DEPTH = 4,
    /* An allgather of so many bytes of each rank goes around in a ring: from here on bandwidth counts,
     * not rounds. */
    ND_WIRE_RING_BYTES = 1 << 15
};

/* Parts of a message, where one starts in it, and how long it is. */
static inline int64_t nd_wire_parts(size_t bytes)
{
    return (int64_t)((bytes + ND_WIRE_PART_BYTES - 1) / ND_WIRE_PART_BYTES);
}

static inline size_t nd_wire_part_start(int64_t part)
{
    return (size_t)part * ND_WIRE_PART_BYTES;
}

static inline int nd_wire_part_length(size_t bytes, int64_t part)
{
    const size_t left = bytes - nd_wire_part_start(part);
    return (int)(left < ND_WIRE_PART_BYTES ? left : ND_WIRE_PART_BYTES);
}

#endif
