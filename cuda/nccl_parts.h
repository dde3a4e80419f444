/* Gradients between GPUs through the tree of dist/tree_reduction.h, by the schedule of the MPI comm
 * (dist/part_schedule.h): level by level, in windows of parts. A window is one NCCL group of all
 * its sends and receives, so that both directions of a link are in use, and then the additions,
 * many per launch.
 *
 * Why ranks do not deadlock:
 *  1. NCCL's operations outside a group run one after another; those of a group progress together.
 *  2. Which parts are in a window follows from the level and the order of all parts, which are the
 *     same on all ranks. So both ends of a message have it in the same window, and ranks without
 *     messages in one skip it.
 *  3. Between two ranks NCCL matches sends and receives in the order of their calls; on both sides
 *     that is the order of parts.
 *  4. What a window sends was summed in windows of lower levels, and is not received or added to in
 *     it; a group waits for no addition of its own window.
 *  5. So of all windows that are not done, the first (level, window) waits for nothing, on any of
 *     its ranks.
 *
 * One stream and one communicator: a level needs the sums of the one below, so two levels of a
 * reduction could not run beside each other, and a communicator a level would only be more
 * connections and buffers. While a window is added up, the link is idle. */
#pragma once

#include "nccl_link.h"

#ifdef __cplusplus
extern "C" {
#endif

#include "dist/part_schedule.h"

enum {
    /* Of a message; rounded ones are cut as MPI's are, since their bits depend on who sends which
     * part. */
    ND_NCCL_PART_BYTES = 1 << 20,
    /* What a rank receives in a window at most, and what it encodes to be sent. */
    ND_NCCL_WINDOW_BYTES = 32 << 20,
    /* Messages of one rank in a group are at most twice as many; NCCL takes 2048. */
    ND_NCCL_WINDOW_PARTS = 512
};

typedef struct nd_nccl_parts {
    nd_comm *comm; /* not owned; bytes_sent counts what is sent */
    nd_nccl_link link;
    size_t part_bytes, window_bytes; /* multiples of 256; two parts fit a window */
    char *scratch;                   /* [2][window_bytes] of the device: received, encoded */
    nd_part_schedule schedule;
    const nd_comm_piece *pieces; /* of the reduction at hand */
    struct nd_nccl_load *loads;  /* [load_capacity] of the window at hand */
    int load_capacity;
} nd_nccl_parts;

/* nd_comm_ops.reduce_to_owners in memory of the device, enqueued; the caller has set what is above
 * `schedule`, and all else to zero. Collective. Errors: ND_ENOMEM, those of the link. */
nd_status nd_nccl_parts_reduce(nd_nccl_parts *parts, nd_comm_split split, nd_comm_piece *pieces,
                               int64_t count);

/* Frees the host's memory, not `scratch`. */
void nd_nccl_parts_destroy(nd_nccl_parts *parts);

#ifdef __cplusplus
}
#endif
