#include "dist/weight_gather.h"

#include "dist/weight_wire.h"

#include <stdlib.h>

enum { SCRATCH = 4096 * ND_DELTA_BLOCK };

bool nd_weight_gather_changes(const nd_weight_gather *gather, const nd_model *model, int64_t index)
{
    const nd_param_role role = model->params.list[index].role;
    return gather->embedding == ND_EMBEDDING_WIRE_INT8_DELTA &&
           (role == ND_ROLE_EMBEDDING || role == ND_ROLE_HEAD);
}

/* Whether it is sent in the stream instead of a buffer. */
static bool streams(const nd_weight_gather *gather, const nd_weight *w)
{
    return w->ternary && gather->codes == ND_WEIGHT_WIRE_CHANGED;
}

size_t nd_weight_gather_bytes(const nd_weight_gather *gather, const nd_model *model, int64_t index,
                              bool whole)
{
    const nd_weight *w = &model->weights[index];
    if (streams(gather, w) && !whole)
        return nd_view_bytes(nd_as_const(w->scales)) + sizeof(uint32_t) +
               (size_t)(ND_CHANGED_TYPICAL * (double)nd_view_count(nd_as_const(w->codes)));
    return !whole && nd_weight_gather_changes(gather, model, index)
               ? nd_weight_delta_bytes(w)
               : nd_weight_wire_bytes(w, gather->codes);
}

/* What member r of a group sends. */
static size_t rank_bytes(const nd_weight_gather *gather, const nd_model *model, int r, bool whole)
{
    size_t bytes = 0;
    for (int64_t i = 0; i < gather->own->count; i++)
        if (gather->own->owner[i] == r && !streams(gather, &model->weights[i]))
            bytes += nd_weight_gather_bytes(gather, model, i, whole);
    return bytes;
}

nd_status nd_weight_gather_reserve(nd_weight_gather *gather, const nd_model *model,
                                   const nd_ownership *own, int rank, nd_arena *arena)
{
    bool changes = false;
    gather->own = own;
    if (gather->codes == ND_WEIGHT_WIRE_CHANGED)
        ND_TRY(nd_code_stream_reserve(&gather->stream, model, own, rank % own->group, arena));
    for (int64_t i = 0; i < own->count; i++)
        changes |= nd_weight_gather_changes(gather, model, i);
    if (changes)
        ND_TRY(nd_arena_reserve(arena, ND_F32, 1, SCRATCH, &gather->scratch));
    if (own->group == 1 && !changes)
        return ND_OK;
    if (!gather->buffers)
        gather->buffers = calloc((size_t)own->group, sizeof *gather->buffers);
    if (!gather->buffers)
        return ND_FAIL(ND_ENOMEM, "no memory for the table of %d wire buffers", own->group);
    for (int r = 0; r < own->group; r++) {
        const size_t bytes = rank_bytes(gather, model, r, true);
        ND_TRY(nd_arena_reserve(arena, ND_U8, 1, (int64_t)bytes, &gather->buffers[r]));
    }
    return ND_OK;
}

void nd_weight_gather_destroy(nd_weight_gather *gather)
{
    nd_code_stream_destroy(&gather->stream);
    free(gather->buffers);
    gather->buffers = NULL;
}

/* What this rank owns, into its buffer where others need it. */
static nd_status make(nd_weight_gather *gather, nd_model *model, const nd_view *masters, bool whole,
                      int member)
{
    nd_backend *b = model->backend;
    char *at = gather->buffers ? gather->buffers[member].data : NULL;
    for (int64_t i = 0; i < gather->own->count; i++) {
        const nd_weight *w = &model->weights[i];
        if (gather->own->owner[i] != member || (streams(gather, w) && gather->own->group > 1))
            continue;
        if (!whole && nd_weight_gather_changes(gather, model, i)) {
            ND_TRY(nd_weight_delta_make(b, w, nd_as_const(masters[i]), gather->scratch, at));
            ND_TRY(nd_weight_delta_apply(b, w, gather->scratch, at));
        } else {
            ND_TRY(nd_model_load_weight(model, i, nd_as_const(masters[i])));
            if (gather->own->group > 1)
                ND_TRY(nd_weight_wire_pack(b, w, gather->codes, at));
        }
        if (at && !streams(gather, w))
            at += nd_weight_gather_bytes(gather, model, i, whole);
    }
    return ND_OK;
}

/* What member r sent. */
static nd_status take(nd_weight_gather *gather, nd_model *model, bool whole, int r)
{
    nd_backend *b = model->backend;
    char *at = gather->buffers[r].data;
    for (int64_t i = 0; i < gather->own->count; i++) {
        const nd_weight *w = &model->weights[i];
        if (gather->own->owner[i] != r || streams(gather, w))
            continue;
        if (!whole && nd_weight_gather_changes(gather, model, i))
            ND_TRY(nd_weight_delta_apply(b, w, gather->scratch, at));
        else
            ND_TRY(nd_weight_wire_unpack(b, w, gather->codes, at));
        at += nd_weight_gather_bytes(gather, model, i, whole);
    }
    return ND_OK;
}

static nd_status exchange(const nd_weight_gather *gather, const nd_model *model, bool whole,
                          nd_comm *comm)
{
    const int group = gather->own->group;
    void **buffers = calloc((size_t)group, sizeof *buffers);
    size_t *bytes = calloc((size_t)group, sizeof *bytes);
    nd_status status = ND_OK;
    if (!buffers || !bytes)
        status = ND_FAIL(ND_ENOMEM, "no memory for the table of %d wire buffers", group);
    for (int r = 0; status == ND_OK && r < group; r++) {
        buffers[r] = gather->buffers[r].data;
        bytes[r] = rank_bytes(gather, model, r, whole);
    }
    if (status == ND_OK)
        status = nd_comm_broadcast_each(comm, buffers, bytes);
    free(buffers);
    free(bytes);
    return status;
}

nd_status nd_weight_gather_run(nd_weight_gather *gather, nd_model *model, const nd_view *masters,
                               bool whole, nd_comm *comm)
{
    ND_TRY(make(gather, model, masters, whole, comm->rank % gather->own->group));
    if (gather->own->group > 1)
        ND_TRY(exchange(gather, model, whole, comm));
    for (int r = 0; gather->own->group > 1 && r < gather->own->group; r++)
        if (r != comm->rank % gather->own->group)
            ND_TRY(take(gather, model, whole, r));
    return gather->own->group > 1 && gather->codes == ND_WEIGHT_WIRE_CHANGED
               ? nd_code_stream_run(&gather->stream, model, masters, whole, comm)
               : ND_OK;
}
