/* Sends weights from owners to replicas after an update: ternary codes and scales, and dense
 * weights in the compute type or as changes (dist/weight_wire.h). Masters are not sent. */
#pragma once

#include "core/base/arena.h"
#include "core/model/model.h"
#include "dist/code_stream.h"
#include "dist/comm.h"
#include "dist/ownership.h"

typedef struct nd_weight_gather {
    const nd_ownership *own; /* not owned */
    nd_weight_wire codes;
    nd_embedding_wire embedding;
    nd_code_stream stream; /* for ternary weights sent as changes */
    nd_view *buffers;      /* [own->ranks] u8: what each rank sends otherwise */
    nd_view scratch; /* f32 [1, n] of a change; data NULL: no dense weight is sent as a change */
} nd_weight_gather;

/* Typical bytes per code when changes are sent, measured (docs/wire.md). */
#define ND_CHANGED_TYPICAL 0.025

/* Bytes of weight `index` on the wire in a step; `whole`: where weights are sent whole. Ternary
 * weights sent as changes are estimated by ND_CHANGED_TYPICAL. */
size_t nd_weight_gather_bytes(const nd_weight_gather *gather, const nd_model *model, int64_t index,
                              bool whole);

/* Lays out the wire buffers: run it on a sizing arena, commit, run it again. A single rank needs
 * them only for changes, which it makes and applies as several ranks would. Errors: those of
 * nd_arena_reserve and nd_code_stream_reserve. */
nd_status nd_weight_gather_reserve(nd_weight_gather *gather, const nd_model *model,
                                   const nd_ownership *own, int rank, nd_arena *arena);
void nd_weight_gather_destroy(nd_weight_gather *gather);

/* Updates every replica from the owners' masters [params.count] (data NULL where this rank is not
 * the owner): ternarised, converted, or changed towards the master. Changes need replicas that were
 * equal before; with `whole` no changes are sent. Collective. Errors: ND_EPEER, ND_ENOMEM. */
nd_status nd_weight_gather_run(nd_weight_gather *gather, nd_model *model, const nd_view *masters,
                               bool whole, nd_comm *comm);
