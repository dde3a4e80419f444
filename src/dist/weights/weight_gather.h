/* Sends weights from owners to replicas after an update: ternary codes and scales, and dense
 * weights in the compute type or as changes (dist/weights/weight_wire.h). Masters are not sent. */
#pragma once

#include "core/base/arena.h"
#include "core/model/model.h"
#include "dist/comm.h"
#include "dist/ownership.h"
#include "dist/weights/code_stream.h"

/* Weights in the order in which they were added to what is sent. */
typedef struct nd_added_weights {
    int64_t *order; /* [own->count] the first `count` are indices of weights */
    bool *is;       /* [own->count] */
    int64_t count;
    size_t *end, *begun;      /* [own->ranks] bytes of each rank's buffer that are added, sent */
    struct nd_sending *first; /* exchanges in flight */
} nd_added_weights;

typedef struct nd_weight_gather {
    const nd_ownership *own; /* not owned */
    nd_weight_sync codes;
    nd_embedding_sync embedding;
    nd_code_stream stream; /* for ternary weights sent as changes */
    nd_view *buffers;      /* [own->ranks] u8: what each rank sends otherwise */
    nd_view scratch; /* f32 [1, n] of a change; data NULL: no dense weight is sent as a change */
    bool ahead;      /* in: nd_weight_gather_add sends; the same on all ranks */
    nd_added_weights added;
} nd_weight_gather;

/* Typical bytes per code when changes are sent, measured (docs/wire.md). */
#define ND_CHANGED_TYPICAL 0.025

/* Bytes of weight `index` on the wire in a step; `whole`: where weights are sent whole. Ternary
 * weights sent as changes are estimated by ND_CHANGED_TYPICAL. */
size_t nd_weight_gather_bytes(const nd_weight_gather *gather, const nd_model *model, int64_t index,
                              bool whole);

/* Whether `w` is sent in the stream, after the buffers. */
bool nd_weight_gather_streams(const nd_weight_gather *gather, const nd_weight *w);

/* Lays out the wire buffers: run it on a sizing arena, commit, run it again. A single rank needs
 * them only for changes, which it makes and applies as several ranks would. Errors: those of
 * nd_arena_reserve and nd_code_stream_reserve. */
nd_status nd_weight_gather_reserve(nd_weight_gather *gather, const nd_model *model,
                                   const nd_ownership *own, int rank, nd_arena *arena);
void nd_weight_gather_destroy(nd_weight_gather *gather);

/* Bytes of all ranks' weights that are worth an exchange of their own. A ring of N ranks takes N
 * latencies more than its bytes: with a part for each rank, which takes longer than a latency, they
 * are the smaller half. */
static inline size_t nd_weight_gather_least(int ranks, size_t part_bytes)
{
    return (size_t)ranks * part_bytes;
}

/* With `ahead`: packs weight `index` from its final master, and starts sending what was added once
 * it is nd_weight_gather_least, while the caller goes on computing. The owner's replica is changed
 * at once. Weights of the stream are left to nd_weight_gather_run. All ranks add the same weights
 * in the same order. Collective. Errors: ND_EPEER, ND_ENOMEM. */
nd_status nd_weight_gather_add(nd_weight_gather *gather, nd_model *model, const nd_view *masters,
                               int64_t index, nd_comm *comm);

/* Updates every replica from the owners' masters [params.count] (data NULL where this rank is not
 * the owner): ternarized, converted, or changed towards the master. Changes need replicas that were
 * equal before; with `whole` no changes are sent, else nothing of weights that this step does not
 * train. Weights that were added are not packed again.
 * Collective. Errors: ND_EPEER, ND_ENOMEM. */
nd_status nd_weight_gather_run(nd_weight_gather *gather, nd_model *model, const nd_view *masters,
                               bool whole, nd_comm *comm);

/* Forgets what was added, of which nothing may be in flight, for replicas that are about to be
 * replaced. */
void nd_weight_gather_discard(nd_weight_gather *gather);
