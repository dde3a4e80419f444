/* Ternary weights sent as changes (weight_sync = delta): one message of variable length from each
 * owner, encoded and decoded on the host or by kernels on the device. A matrix with too many
 * changes is sent whole, five codes to a byte.
 *
 * Ranks exchange the lengths of their messages and then send them around the ring
 * (dist/weights/ring.h), as many ranks' messages at once as the buffers hold: usually all. */
#pragma once

#include "core/base/arena.h"
#include "core/model/model.h"
#include "dist/comm.h"
#include "dist/ownership.h"
#include "dist/weights/code_kernels.h"

typedef struct nd_code_stream {
    const nd_ownership *own;        /* not owned */
    const nd_code_kernels *kernels; /* in: of the model's backend; NULL: encode on the host */
    nd_view mine, theirs;           /* u8: messages of this rank and of others */
    nd_view before, now; /* i8: room for one matrix each; `now` where codes are in device memory */
    nd_view at, work;    /* u8: working memory of kernels */
    /* heap memory of mine, theirs, before and now, if neither the host nor kernels reach the
     * arena's */
    void *host;
} nd_code_stream;

/* Lays out the streams of member `member` of a group: run it on a sizing arena, commit, run it
 * again. A single rank needs none. Where neither the host nor kernels can access the arena's
 * memory, allocates them once on the heap; nd_code_stream_destroy frees that. Errors: ND_ENOMEM;
 * those of nd_arena_reserve. */
nd_status nd_code_stream_reserve(nd_code_stream *s, const nd_model *model, const nd_ownership *own,
                                 int member, nd_arena *arena);
void nd_code_stream_destroy(nd_code_stream *s);

/* Sets every ternary weight to the ternarized master of its owner: masters [params.count], data
 * NULL where this rank owns nothing. Unless `whole`, sends changes, for which all replicas must be
 * equal. With kernels the host waits for the device once, for the length of what it sends; damaged
 * input is then an error of a later wait. Collective. Errors: ND_EPEER, ND_ENOMEM. */
nd_status nd_code_stream_run(nd_code_stream *s, nd_model *model, const nd_view *masters, bool whole,
                             nd_comm *comm);
