/* Sums gradients of GPUs along the tree of dist/reduction/tree_reduction.h, by the schedule of the
 * MPI comm (dist/reduction/part_schedule.h): level by level, in windows of parts. A window is one
 * NCCL group of all its sends and receives, so that both directions of a link are in use, and then
 * the additions, many per launch, while the next window is exchanged.
 *
 * Levels within a host have a communicator and queues of their own where there are several hosts
 * with several ranks each (nd_nccl_link.by_host). The parts are then divided into batches, and
 * while a batch goes between hosts the next one is summed within them.
 *
 * Why ranks do not deadlock:
 *  1. NCCL's operations outside a group run one after another; those of a group progress together.
 *  2. Which parts are in a window follows from the level and the order of all parts, which are the
 *     same on all ranks. So both ends of a message have it in the same window, and ranks without
 *     messages in one skip it.
 *  3. Between two ranks NCCL matches sends and receives of a communicator in the order of their
 *     calls; on both sides that is the order of parts.
 *  4. What a window sends was summed in windows of lower levels, and is not received or added to in
 *     it; a group waits for no addition of its own level.
 *  5. All ranks enqueue windows of both communicators in one order. So of all windows that are not
 *     done, the first in it waits for nothing, on any of its ranks. That needs a device on which a
 *     group that was enqueued later does not keep an earlier one from beginning: NCCL's order of
 *     launches (nccl_join.cu). */
#pragma once

#include "nccl_link.h"

#ifdef __cplusplus
extern "C" {
#endif

#include "dist/reduction/part_schedule.h"

enum {
    /* Bytes of a message. Rounded ones are cut as MPI's are, since their bits depend on who sends
     * which part. */
    ND_NCCL_PART_BYTES = 1 << 20,
    /* The most that a rank receives in a window, and the most that it encodes to send. */
    ND_NCCL_WINDOW_BYTES = 16 << 20,
    /* Parts of a window that one rank takes. Its messages in a group are at most twice as many;
     * NCCL allows 2048. */
    ND_NCCL_WINDOW_PARTS = 512
};

typedef struct nd_nccl_parts {
    nd_comm *comm; /* not owned; bytes_sent counts what is sent */
    nd_nccl_link link;
    size_t part_bytes, window_bytes; /* multiples of 256; two parts fit a window */
    char *scratch;                   /* device memory: nd_nccl_parts_scratch */
    int half[ND_NCCL_COMMUNICATORS]; /* of its memory, for the next window: 0 or 1 */
    nd_part_schedule schedule;
    const nd_comm_piece *pieces; /* of the current reduction */
    struct nd_nccl_load *loads;  /* [load_capacity] of the current window */
    int load_capacity;
} nd_nccl_parts;

/* Bytes of `scratch`: for each communicator two windows of received parts and two of encoded ones,
 * since windows overlap; received parts come first. */
size_t nd_nccl_parts_scratch(bool by_host, size_t window_bytes);

/* Enqueues nd_comm_ops.reduce_to_owners in device memory. Before the first call, the caller sets
 * the fields above `schedule` and zeroes the others. Collective. Errors: ND_ENOMEM, those of the
 * link. */
nd_status nd_nccl_parts_reduce(nd_nccl_parts *parts, nd_comm_split split, nd_comm_piece *pieces,
                               int64_t count);

/* Frees the host memory, but not `scratch`. */
void nd_nccl_parts_destroy(nd_nccl_parts *parts);

#ifdef __cplusplus
}
#endif
