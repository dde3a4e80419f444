/* How the MPI comm splits messages; also for predictions of its time (train/plan/plan_cost.c). */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum {
    /* The largest part of a long message in bytes (nd_comm.part_bytes): small enough to stay in
     * cache while it is added, large enough to make latency negligible. */
    ND_WIRE_PART_BYTES = 1 << 18,
    /* Parts in flight in each direction. */
    ND_WIRE_DEPTH = 4,
    /* Allgathers of at least so many bytes per rank use a ring: bandwidth matters, not rounds. */
    ND_WIRE_RING_BYTES = 1 << 15
};

/* With parts of `size` bytes: the number of parts; a part's offset; its length. */
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
