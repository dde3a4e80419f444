/* Ternary weights sent as changes (weight_sync = delta): one message from each owner, of whatever length it
 * needs, encoded and decoded on the host or by kernels on the device. A matrix with too many changes is
 * sent whole, five codes to a byte.
 *
 * Ranks tell each other how long their messages are, and send them around the ring (dist/ring.h), of as many ranks at
 * once as there is room for: usually of all. */
#pragma once

#include "core/base/arena.h"
#include "core/model/model.h"
#include "dist/code_kernels.h"
#include "dist/comm.h"
#include "dist/ownership.h"

typedef struct nd_code_stream {
    const nd_ownership *own;        /* not owned */
    const nd_code_kernels *kernels; /* in: of the backend of the model; NULL: none */
    nd_view mine, theirs;           /* u8: of this rank, and of others */
    nd_view before, now; /* i8: room for a matrix each; `now` where codes lie on a device */
    nd_view at, work;    /* u8: what kernels need besides */
    void *host;          /* memory of all four where the arena's is a device's without kernels */
} nd_code_stream;

/* Lays out the streams of member `member` of a group; run on a sizing arena, commit, run again. One rank needs none. Where
 * neither the host nor kernels can read the arena's memory it is taken from the heap instead, once. */
nd_status nd_code_stream_reserve(nd_code_stream *s, const nd_model *model, const nd_ownership *own,
                                 int member, nd_arena *arena);
void nd_code_stream_destroy(nd_code_stream *s);

/* Collective. Every ternary weight becomes its owner's master [params.count], ternarised. Replicas must
 * have been equal, unless `whole`, which takes no changes. With kernels the host waits once for the device, for the length of what it
 * sends, and what they find damaged is an error of a later wait. Errors: ND_EPEER. */
nd_status nd_code_stream_run(nd_code_stream *s, nd_model *model, const nd_view *masters, bool whole,
                             nd_comm *comm);
