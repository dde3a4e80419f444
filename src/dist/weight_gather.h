/* After an update owners send what replicas compute with: packed ternary codes and scales, and the
 * dense weights in the compute type. Replicas never see a master. */
#ifndef ND_DIST_WEIGHT_GATHER_H
#define ND_DIST_WEIGHT_GATHER_H

#include "core/arena.h"
#include "core/model.h"
#include "dist/comm.h"
#include "dist/ownership.h"

typedef struct nd_weight_gather {
    const nd_ownership *own; /* not owned */
    nd_view *buffers;        /* [ranks] u8: what each rank sends */
} nd_weight_gather;

/* Bytes of one weight on the wire. */
size_t nd_weight_gather_bytes(const nd_weight *weight);

/* Lays out the wire buffers; run measuring, commit, run again. One rank needs none. */
nd_status nd_weight_gather_take(nd_weight_gather *gather, const nd_model *model,
                                const nd_ownership *own, nd_arena *arena);
void nd_weight_gather_destroy(nd_weight_gather *gather);

/* Collective. Every weight of `model` becomes its owner's. Errors: ND_EPEER. */
nd_status nd_weight_gather_run(nd_weight_gather *gather, nd_model *model, nd_comm *comm);

#endif
