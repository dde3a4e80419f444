/* How the MPI comm cuts what it moves: known to the comm, and to whoever predicts its time
 * (train/plan/plan_cost.c). */
#ifndef ND_DIST_WIRE_SIZES_H
#define ND_DIST_WIRE_SIZES_H

enum {
    /* A long message moves in parts of so many bytes: small enough to stay in cache while they are
     * added, large enough that latency does not count. */
    ND_WIRE_PART_BYTES = 1 << 18,
    /* So many parts are on their way at once in each direction. */
    ND_WIRE_DEPTH = 4,
    /* An allgather of so many bytes of each rank goes around in a ring: from here on bandwidth counts,
     * not rounds. */
    ND_WIRE_RING_BYTES = 1 << 15
};

#endif
