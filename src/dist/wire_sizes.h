/* How the MPI comm splits messages, for the comm itself and for predictions of its time
 * (train/plan/plan_cost.c). */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum {
    /* The largest part of a long message in bytes (nd_comm.part_bytes): small enough to stay in
     * cache while it is added, large enough to make latency negligible. */
    ND_WIRE_PART_BYTES = 1 << 18,
    /* Parts in flight in each direction. */
    ND_WIRE_DEPTH = 4,
    /* An allgather of at least so many bytes per rank uses a ring: bandwidth matters there, not
     * rounds. */
    ND_WIRE_RING_BYTES = 1 << 15
};

/* The number of parts of a message; the offset of a part; the length of a part. Parts have `size`
 * bytes. */
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
