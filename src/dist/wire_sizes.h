/* How the MPI comm cuts what it moves: known to the comm, and to whoever predicts its time
 * (train/plan/plan_cost.c). */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum {
    /* Bytes of a part of a long message, at most (nd_comm.part_bytes): small enough to stay in cache while
     * they are added, large enough that latency does not count. */
    ND_WIRE_PART_BYTES = 1 << 18,
    /* Parts in flight in each direction. */
    ND_WIRE_DEPTH = 4,
    /* An allgather of so many bytes of each rank goes around in a ring: from here on bandwidth counts,
     * not rounds. */
    ND_WIRE_RING_BYTES = 1 << 15
};

/* Parts of a message, where one starts in it, and how long it is, with parts of `size` bytes. */
static inline int64_t nd_wire_parts(size_t bytes, size_t size)
{
    return (int64_t)((bytes + size - 1) / size);
}

static inline size_t nd_wire_part_start(int64_t part, size_t size)
{
    return (size_t)part * size;
}

static inline int nd_wire_part_length(size_t bytes, int64_t part, size_t size)
{
    const size_t left = bytes - nd_wire_part_start(part, size);
    return (int)(left < size ? left : size);
}
