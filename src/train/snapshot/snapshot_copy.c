/* Sends copies of parts to other ranks in pieces that overlap the following steps: a piece starts
 * between two steps and is sent while the next one computes, except beside workers of several
 * ranks. */
#include "train/snapshot/snapshot_parts.h"

#include <stdlib.h>

enum { PIECE_BYTES = 1 << 20 };

/* Pieces take at most half of the interval, so that copies are complete in good time. */
static int64_t count_pieces(const nd_run *run, const int64_t *bytes)
{
    int64_t largest = 0;
    for (int r = 0; r < run->comm->size; r++)
        largest = bytes[r] > largest ? bytes[r] : largest;
    const int64_t most = (run->config.logging.snapshot_interval + 1) / 2;
    const int64_t wanted = (largest + PIECE_BYTES - 1) / PIECE_BYTES;
    return wanted < 1 ? 1 : wanted < most ? wanted : most;
}

static void unmap(nd_snapshot_copy *copy)
{
    nd_snapshot_unmap(copy->out, copy->out_bytes);
    nd_snapshot_unmap(copy->in, copy->in_bytes);
    *copy = (nd_snapshot_copy){0};
}

static nd_status open_files(nd_run *run, const int64_t *bytes)
{
    nd_snapshots *s = run->saving.snapshots;
    nd_snapshot_copy *copy = &s->copy;
    char path[ND_CHECKPOINT_PATH_MAX];
    copy->in_bytes = (size_t)bytes[s->from];
    ND_TRY(nd_snapshot_part_path(run, s->step, ND_PART_OWN, run->comm->rank, path));
    ND_TRY(nd_snapshot_map(path, &copy->out, &copy->out_bytes));
    ND_TRY(nd_snapshot_part_path(run, s->step, ND_PART_COPY, s->from, path));
    return nd_snapshot_map_new(path, copy->in_bytes, &copy->in);
}

nd_status nd_snapshot_copy_begin(nd_run *run)
{
    nd_snapshots *s = run->saving.snapshots;
    const int64_t mine = run->saving.snapshot->summary.bytes;
    ND_AUTOFREE int64_t *bytes = calloc((size_t)run->comm->size, sizeof *bytes);
    nd_status status =
        nd_comm_agree(run->comm, ND_CHECK(bytes, ND_ENOMEM, "no memory for sizes of parts"));
    ND_IF_OK(run->comm->ops.allgather(run->comm, bytes, &mine, sizeof mine));
    ND_IF_OK(nd_comm_agree(run->comm, open_files(run, bytes)));
    if (status == ND_OK)
        s->copy.pieces = count_pieces(run, bytes);
    else
        unmap(&s->copy);
    return status;
}

/* The bytes before piece `piece` of `pieces`. */
static size_t start_of(size_t bytes, int64_t piece, int64_t pieces)
{
    return bytes / (size_t)pieces * (size_t)piece + (piece == pieces ? bytes % (size_t)pieces : 0);
}

nd_status nd_snapshot_copy_advance(nd_run *run, bool *done)
{
    nd_snapshots *s = run->saving.snapshots;
    nd_snapshot_copy *c = &s->copy;
    *done = false;
    ND_TRY(run->comm->ops.finish(run->comm));
    if (c->begun == c->pieces) {
        unmap(c);
        *done = true;
        return ND_OK;
    }
    const size_t out = start_of(c->out_bytes, c->begun, c->pieces);
    const size_t in = start_of(c->in_bytes, c->begun, c->pieces);
    c->begun++;
    const nd_comm_exchange piece = {.out = (char *)c->out + out,
                                    .out_bytes = start_of(c->out_bytes, c->begun, c->pieces) - out,
                                    .to = s->to,
                                    .in = (char *)c->in + in,
                                    .in_bytes = start_of(c->in_bytes, c->begun, c->pieces) - in,
                                    .from = s->from};
    ND_TRY(run->comm->ops.begin_exchange(run->comm, &piece));
    /* Only one communicator may have operations in flight, and workers of several ranks have their
     * own. */
    return run->rounds && run->rounds->inside != run->comm && run->rounds->inside->size > 1
               ? run->comm->ops.finish(run->comm)
               : ND_OK;
}

void nd_snapshot_copy_abandon(nd_run *run)
{
    if (run->saving.snapshots->stage == ND_SNAPSHOT_COPYING)
        run->comm->ops.finish(run->comm); /* its error is returned again later */
    unmap(&run->saving.snapshots->copy);
}
