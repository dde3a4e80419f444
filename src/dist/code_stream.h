/* Ternary weights between ranks as what changed of them: one message of its own length from each owner,
 * made and read in host memory. A matrix of which too much changed goes whole, five codes to a byte. */
#ifndef ND_DIST_CODE_STREAM_H
#define ND_DIST_CODE_STREAM_H

#include "core/arena.h"
#include "core/model.h"
#include "dist/comm.h"
#include "dist/ownership.h"

typedef struct nd_code_stream {
    const nd_ownership *own; /* not owned */
    nd_view mine, theirs;    /* u8: of this rank, and the longest of another */
    nd_view before, now;     /* i8: room for a matrix each; `now` where codes lie on a device */
    void *host;              /* memory of all four where the arena's is a device's, else NULL */
} nd_code_stream;

/* Lays out the streams of rank `rank`; run measuring, commit, run again. One rank needs none. Where the
 * host cannot read the arena's memory it is taken from the heap instead, once. */
nd_status nd_code_stream_take(nd_code_stream *s, const nd_model *model, const nd_ownership *own,
                              int rank, nd_arena *arena);
void nd_code_stream_destroy(nd_code_stream *s);

/* Collective. Every ternary weight becomes its owner's master [params.count], ternarised. Replicas must
 * have been equal, unless `whole`, which takes no changes. Errors: ND_EPEER. */
nd_status nd_code_stream_run(nd_code_stream *s, nd_model *model, const nd_view *masters, bool whole,
                             nd_comm *comm);

#endif
