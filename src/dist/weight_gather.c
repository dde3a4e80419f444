#include "dist/weight_gather.h"

#include <stdlib.h>

/* The parts of one weight on the wire. */
static size_t packed_bytes(const nd_weight *w)
{
    return (size_t)(w->codes.rows * w->codes.cols + 3) / 4;
}

size_t nd_weight_gather_bytes(const nd_weight *w)
{
    if (!w->ternary)
        return nd_view_bytes(nd_read(w->dense));
    return nd_view_bytes(nd_read(w->scales)) + packed_bytes(w);
}

nd_status nd_weight_gather_take(nd_weight_gather *gather, const nd_model *model,
                                const nd_ownership *own, nd_arena *arena)
{
    gather->own = own;
    if (own->ranks == 1)
        return ND_OK;
    if (!gather->buffers)
        gather->buffers = calloc((size_t)own->ranks, sizeof *gather->buffers);
    if (!gather->buffers)
        return ND_FAIL(ND_ENOMEM, "no memory for the table of %d wire buffers", own->ranks);
    for (int r = 0; r < own->ranks; r++) {
        size_t bytes = 0;
        for (int64_t i = 0; i < own->count; i++)
            if (own->owner[i] == r)
                bytes += nd_weight_gather_bytes(&model->weights[i]);
        ND_TRY(nd_arena_take(arena, ND_U8, 1, (int64_t)bytes, &gather->buffers[r]));
    }
    return ND_OK;
}

void nd_weight_gather_destroy(nd_weight_gather *gather)
{
    free(gather->buffers);
    gather->buffers = NULL;
}

static nd_status pack_weight(nd_backend *b, const nd_weight *w, char *at)
{
    if (!w->ternary)
        return b->ops.copy(b, at, w->dense.data, nd_view_bytes(nd_read(w->dense)));
    const size_t scales = nd_view_bytes(nd_read(w->scales));
    ND_TRY(b->ops.copy(b, at, w->scales.data, scales));
    if (w->packed.data)
        return b->ops.copy(b, at + scales, w->packed.data, packed_bytes(w));
    const nd_view packed = nd_view_of(at + scales, ND_U8, 1, (int64_t)packed_bytes(w));
    return b->ops.pack_codes(b, packed, nd_read(w->codes));
}

static nd_status unpack_weight(nd_backend *b, const nd_weight *w, const char *at)
{
    if (!w->ternary)
        return b->ops.copy(b, w->dense.data, at, nd_view_bytes(nd_read(w->dense)));
    const size_t scales = nd_view_bytes(nd_read(w->scales));
    ND_TRY(b->ops.copy(b, w->scales.data, at, scales));
    if (w->packed.data)
        return b->ops.copy(b, w->packed.data, at + scales, packed_bytes(w));
    const nd_cview packed = nd_cview_of(at + scales, ND_U8, 1, (int64_t)packed_bytes(w));
    return b->ops.unpack_codes(b, w->codes, packed);
}

nd_status nd_weight_gather_run(nd_weight_gather *gather, nd_model *model, nd_comm *comm)
{
    const nd_ownership *own = gather->own;
    nd_backend *b = model->backend;
    if (own->ranks == 1)
        return ND_OK;
    char *at = gather->buffers[comm->rank].data;
    for (int64_t i = 0; i < own->count; i++)
        if (own->owner[i] == comm->rank) {
            ND_TRY(pack_weight(b, &model->weights[i], at));
            at += nd_weight_gather_bytes(&model->weights[i]);
        }
    for (int r = 0; r < own->ranks; r++) {
        nd_view buffer = gather->buffers[r];
        ND_TRY(comm->ops.broadcast_device(comm, buffer.data, nd_view_bytes(nd_read(buffer)), r));
        if (r == comm->rank)
            continue;
        at = buffer.data;
        for (int64_t i = 0; i < own->count; i++)
            if (own->owner[i] == r) {
                ND_TRY(unpack_weight(b, &model->weights[i], at));
                at += nd_weight_gather_bytes(&model->weights[i]);
            }
    }
    return ND_OK;
}
