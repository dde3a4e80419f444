#include "dist/weight_gather.h"

#include "dist/weight_wire.h"

#include <stdlib.h>

enum { SCRATCH = 4096 * ND_DELTA_BLOCK };

/* Whether weight `index` may be sent as its change: embedding and heads with int8_delta. */
static bool sends_change(const nd_weight_gather *gather, const nd_model *model, int64_t index)
{
    const nd_param_role role = model->params.list[index].role;
    return gather->embedding == ND_EMBEDDING_WIRE_INT8_DELTA &&
           (role == ND_ROLE_EMBEDDING || role == ND_ROLE_HEAD);
}

/* Whether it is sent in the code stream instead of a buffer. */
static bool streams(const nd_weight_gather *gather, const nd_weight *w)
{
    return w->ternary && gather->codes == ND_WEIGHT_WIRE_CHANGED;
}

/* Bytes of weight `index`, or of the rows of it that `w` holds. */
static size_t bytes_of(const nd_weight_gather *gather, const nd_model *model, int64_t index,
                       const nd_weight *w, bool whole)
{
    return !whole && sends_change(gather, model, index) ? nd_weight_delta_bytes(w)
                                                        : nd_weight_wire_bytes(w, gather->codes);
}

size_t nd_weight_gather_bytes(const nd_weight_gather *gather, const nd_model *model, int64_t index,
                              bool whole)
{
    const nd_weight *w = &model->weights[index];
    if (streams(gather, w) && !whole)
        return nd_view_bytes(nd_as_const(w->scales)) + sizeof(uint32_t) +
               (size_t)(ND_CHANGED_TYPICAL * (double)nd_view_count(nd_as_const(w->codes)));
    return bytes_of(gather, model, index, w, whole);
}

/* A weight in a rank's buffer. */
typedef struct entry {
    int64_t index;
    nd_weight w; /* the rows that the rank owns */
} entry;

/* Advances to the next weight that rank r owns (or rows of) and sends in a buffer. Starts at -1. */
static bool next_entry(const nd_weight_gather *gather, const nd_model *model, int r, entry *e)
{
    while (++e->index < gather->own->count) {
        e->w = model->weights[e->index];
        if (streams(gather, &e->w))
            continue;
        const nd_row_span span =
            nd_ownership_span(gather->own, e->index, r, model->params.list[e->index].rows);
        if (span.count > 0 && !e->w.ternary)
            e->w.dense = nd_view_rows(e->w.dense, span.first, span.count);
        if (span.count > 0)
            return true;
    }
    return false;
}

/* Bytes that rank r sends. */
static size_t rank_bytes(const nd_weight_gather *gather, const nd_model *model, int r, bool whole)
{
    size_t bytes = 0;
    for (entry e = {.index = -1}; next_entry(gather, model, r, &e);)
        bytes += bytes_of(gather, model, e.index, &e.w, whole);
    return bytes;
}

nd_status nd_weight_gather_reserve(nd_weight_gather *gather, const nd_model *model,
                                   const nd_ownership *own, int rank, nd_arena *arena)
{
    bool changes = false;
    gather->own = own;
    if (gather->codes == ND_WEIGHT_WIRE_CHANGED)
        ND_TRY(nd_code_stream_reserve(&gather->stream, model, own, rank, arena));
    for (int64_t i = 0; i < own->count; i++)
        changes |= sends_change(gather, model, i);
    if (changes)
        ND_TRY(nd_arena_reserve(arena, ND_F32, 1, SCRATCH, &gather->scratch));
    if (own->ranks == 1 && !changes)
        return ND_OK;
    if (!gather->buffers)
        gather->buffers = calloc((size_t)own->ranks, sizeof *gather->buffers);
    if (!gather->buffers)
        return ND_FAIL(ND_ENOMEM, "no memory for the table of %d wire buffers", own->ranks);
    for (int r = 0; r < own->ranks; r++) {
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

/* A single rank sends no stream. */
static nd_status load_streamed(const nd_weight_gather *gather, nd_model *model,
                               const nd_view *masters)
{
    for (int64_t i = 0; i < gather->own->count; i++)
        if (streams(gather, &model->weights[i]))
            ND_TRY(nd_model_load_weight(model, i, nd_as_const(masters[i])));
    return ND_OK;
}

static nd_status load(nd_model *model, const entry *e, nd_cview master)
{
    nd_backend *b = model->backend;
    return e->w.ternary ? nd_model_load_weight(model, e->index, master)
                        : b->ops.axpby(b, e->w.dense, 1.0f, master, 0.0f);
}

/* Packs what this rank owns into its buffer where others need it. */
static nd_status make(nd_weight_gather *gather, nd_model *model, const nd_view *masters, bool whole,
                      int rank)
{
    nd_backend *b = model->backend;
    char *at = gather->buffers ? gather->buffers[rank].data : NULL;
    if (gather->own->ranks == 1)
        ND_TRY(load_streamed(gather, model, masters));
    for (entry e = {.index = -1}; next_entry(gather, model, rank, &e);) {
        const nd_cview master = nd_as_const(masters[e.index]);
        if (!whole && sends_change(gather, model, e.index)) {
            ND_TRY(nd_weight_delta_encode(b, &e.w, master, gather->scratch, at));
            ND_TRY(nd_weight_delta_apply(b, &e.w, gather->scratch, at));
        } else {
            ND_TRY(load(model, &e, master));
            if (gather->own->ranks > 1)
                ND_TRY(nd_weight_wire_pack(b, &e.w, gather->codes, at));
        }
        if (at)
            at += bytes_of(gather, model, e.index, &e.w, whole);
    }
    return ND_OK;
}

/* Unpacks what rank r sent. */
static nd_status take(nd_weight_gather *gather, nd_model *model, bool whole, int r)
{
    nd_backend *b = model->backend;
    char *at = gather->buffers[r].data;
    for (entry e = {.index = -1}; next_entry(gather, model, r, &e);) {
        if (!whole && sends_change(gather, model, e.index))
            ND_TRY(nd_weight_delta_apply(b, &e.w, gather->scratch, at));
        else
            ND_TRY(nd_weight_wire_unpack(b, &e.w, gather->codes, at));
        at += bytes_of(gather, model, e.index, &e.w, whole);
    }
    return ND_OK;
}

static nd_status exchange(const nd_weight_gather *gather, const nd_model *model, bool whole,
                          nd_comm *comm)
{
    const int members = gather->own->ranks;
    void **buffers = calloc((size_t)members, sizeof *buffers);
    size_t *bytes = calloc((size_t)members, sizeof *bytes);
    nd_status status = ND_CHECK(buffers && bytes, ND_ENOMEM,
                                "no memory for the table of %d wire buffers", members);
    for (int r = 0; status == ND_OK && r < members; r++) {
        buffers[r] = gather->buffers[r].data;
        bytes[r] = rank_bytes(gather, model, r, whole);
    }
    ND_IF_OK(nd_comm_broadcast_each(comm, buffers, bytes));
    free(buffers);
    free(bytes);
    return status;
}

nd_status nd_weight_gather_run(nd_weight_gather *gather, nd_model *model, const nd_view *masters,
                               bool whole, nd_comm *comm)
{
    ND_TRY(make(gather, model, masters, whole, nd_comm_member(comm)));
    if (gather->own->ranks > 1)
        ND_TRY(exchange(gather, model, whole, comm));
    for (int r = 0; gather->own->ranks > 1 && r < gather->own->ranks; r++)
        if (r != nd_comm_member(comm))
            ND_TRY(take(gather, model, whole, r));
    return gather->own->ranks > 1 && gather->codes == ND_WEIGHT_WIRE_CHANGED
               ? nd_code_stream_run(&gather->stream, model, masters, whole, comm)
               : ND_OK;
}
