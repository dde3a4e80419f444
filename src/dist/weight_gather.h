/* After an update owners send what replicas compute with: ternary codes and scales, and the dense
 * weights in the compute type or as their change (dist/weight_wire.h). Replicas never see a master. */
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
    nd_code_stream stream; /* of ternary weights, where codes = changed */
    nd_view *buffers;      /* [own->ranks] u8: what each sends besides */
    nd_view scratch;       /* f32 [1, n] of a change; data NULL: none is ever sent */
} nd_weight_gather;

/* Bytes a code of the changes of a step, measured (docs/wire.md). */
#define ND_CHANGED_TYPICAL 0.025

/* Whether weight `index` may be sent as its change: embedding and heads under int8_delta. */
bool nd_weight_gather_changes(const nd_weight_gather *gather, const nd_model *model, int64_t index);

/* Bytes of weight `index` on the wire in a step; `whole`: where weights are sent whole. Of a ternary one
 * of which the changes are sent: what ND_CHANGED_TYPICAL of its codes take. */
size_t nd_weight_gather_bytes(const nd_weight_gather *gather, const nd_model *model, int64_t index,
                              bool whole);

/* Lays out the wire buffers; run on a sizing arena, commit, run again. One rank needs none but for changes,
 * which it makes and applies as several would. */
nd_status nd_weight_gather_reserve(nd_weight_gather *gather, const nd_model *model,
                                   const nd_ownership *own, int rank, nd_arena *arena);
void nd_weight_gather_destroy(nd_weight_gather *gather);

/* Collective. Every replica becomes what follows from its owner's master [params.count] (data NULL
 * where this rank is not the owner): ternarised, converted, or changed towards it, which needs equal
 * replicas to begin with; `whole` takes no change. Errors: ND_EPEER. */
nd_status nd_weight_gather_run(nd_weight_gather *gather, nd_model *model, const nd_view *masters,
                               bool whole, nd_comm *comm);
