#include "dist/weights/weight_gather.h"

#include "core/model/mtp.h"
#include "dist/weights/weight_wire.h"

#include <stdlib.h>
#include <string.h>

enum { SCRATCH = 4096 * ND_DELTA_BLOCK };

/* Whether weight `index` may be sent as its change: embedding and heads with int8_delta. */
static bool sends_change(const nd_weight_gather *gather, const nd_model *model, int64_t index)
{
    const nd_param_role role = model->params.list[index].role;
    return gather->embedding == ND_EMBEDDING_SYNC_INT8_DELTA &&
           (role == ND_ROLE_EMBEDDING || role == ND_ROLE_HEAD);
}

bool nd_weight_gather_streams(const nd_weight_gather *gather, const nd_weight *w)
{
    return w->ternary && gather->codes == ND_WEIGHT_SYNC_DELTA;
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
    if (nd_weight_gather_streams(gather, w) && !whole)
        return nd_view_bytes(nd_as_const(w->scales)) + sizeof(uint32_t) +
               (size_t)(ND_CHANGED_TYPICAL * (double)nd_view_count(nd_as_const(w->codes)));
    return bytes_of(gather, model, index, w, whole);
}

/* An exchange of what was added since the last one. */
typedef struct nd_sending {
    struct nd_sending *next;
    void **buffers; /* [ranks] */
    size_t *bytes;  /* [ranks] */
} nd_sending;

/* *w: the rows of weight `index` that rank r owns and sends in its buffer. False: none. */
static bool sends(const nd_weight_gather *gather, const nd_model *model, int64_t index, int r,
                  nd_weight *w)
{
    *w = model->weights[index];
    if (nd_weight_gather_streams(gather, w))
        return false;
    const nd_row_span span =
        nd_ownership_span(gather->own, index, r, model->params.list[index].rows);
    if (span.count > 0 && !w->ternary)
        w->dense = nd_view_rows(w->dense, span.first, span.count);
    return span.count > 0;
}

static nd_status create_added(nd_weight_gather *gather)
{
    const nd_ownership *own = gather->own;
    nd_added_weights *a = &gather->added;
    if (!a->order) {
        a->order = calloc((size_t)own->count, sizeof *a->order);
        a->is = calloc((size_t)own->count, sizeof *a->is);
        a->end = calloc(2 * (size_t)own->ranks, sizeof *a->end);
        gather->buffers = calloc((size_t)own->ranks, sizeof *gather->buffers);
    }
    a->begun = a->end ? a->end + own->ranks : NULL;
    return ND_CHECK(a->order && a->is && a->end && gather->buffers, ND_ENOMEM,
                    "no memory for the tables of %lld weights on %d ranks", (long long)own->count,
                    own->ranks);
}

nd_status nd_weight_gather_reserve(nd_weight_gather *gather, const nd_model *model,
                                   const nd_ownership *own, int rank, nd_arena *arena)
{
    bool changes = false;
    nd_weight w;
    gather->own = own;
    ND_TRY(create_added(gather));
    if (gather->codes == ND_WEIGHT_SYNC_DELTA)
        ND_TRY(nd_code_stream_reserve(&gather->stream, model, own, rank, arena));
    for (int64_t i = 0; i < own->count; i++)
        changes |= sends_change(gather, model, i);
    if (changes)
        ND_TRY(nd_arena_reserve(arena, ND_F32, 1, SCRATCH, &gather->scratch));
    if (own->ranks == 1 && !changes)
        return ND_OK;
    size_t *bytes = gather->added.end;
    for (int64_t i = 0; i < own->count; i++)
        for (int r = -1; (r = nd_ownership_next(own, i, r)) >= 0;)
            if (sends(gather, model, i, r, &w))
                bytes[r] += bytes_of(gather, model, i, &w, true);
    nd_status status = ND_OK;
    for (int r = 0; r < own->ranks; r++)
        ND_IF_OK(nd_arena_reserve(arena, ND_U8, 1, (int64_t)bytes[r], &gather->buffers[r]));
    memset(bytes, 0, (size_t)own->ranks * sizeof *bytes);
    return status;
}

static void forget_added(nd_added_weights *a, const nd_ownership *own)
{
    for (nd_sending *s = a->first, *next; s; s = next) {
        next = s->next;
        free(s->buffers);
        free(s->bytes);
        free(s);
    }
    a->first = NULL;
    a->count = 0;
    if (!a->is || !a->end)
        return;
    memset(a->is, 0, (size_t)own->count * sizeof *a->is);
    memset(a->end, 0, 2 * (size_t)own->ranks * sizeof *a->end);
}

void nd_weight_gather_destroy(nd_weight_gather *gather)
{
    nd_added_weights *a = &gather->added;
    nd_code_stream_destroy(&gather->stream);
    forget_added(a, gather->own);
    free(a->order);
    free(a->is);
    free(a->end);
    free(gather->buffers);
    *a = (nd_added_weights){0};
    gather->buffers = NULL;
}

/* A single rank sends no stream. */
static nd_status load_streamed(const nd_weight_gather *gather, nd_model *model,
                               const nd_view *masters)
{
    for (int64_t i = 0; i < gather->own->count; i++)
        if (nd_weight_gather_streams(gather, &model->weights[i]))
            ND_TRY(nd_model_load_weight(model, i, nd_as_const(masters[i])));
    return ND_OK;
}

/* Updates this rank's replica of what it owns, and packs it at `at` where others need it. */
static nd_status pack(const nd_weight_gather *gather, nd_model *model, int64_t index,
                      const nd_weight *w, nd_cview master, bool whole, char *at)
{
    nd_backend *b = model->backend;
    if (!whole && sends_change(gather, model, index)) {
        ND_TRY(nd_weight_delta_encode(b, w, master, gather->scratch, at));
        return nd_weight_delta_apply(b, w, gather->scratch, at);
    }
    ND_TRY(w->ternary ? nd_model_load_weight(model, index, master)
                      : b->ops.axpby(b, w->dense, 1.0f, master, 0.0f));
    return gather->own->ranks > 1 ? nd_weight_wire_pack(b, w, gather->codes, at) : ND_OK;
}

static nd_status add(nd_weight_gather *gather, nd_model *model, const nd_view *masters,
                     int64_t index, bool whole, int member)
{
    nd_added_weights *a = &gather->added;
    nd_weight w;
    if (a->is[index])
        return ND_OK;
    a->is[index] = true;
    a->order[a->count++] = index;
    for (int r = -1; (r = nd_ownership_next(gather->own, index, r)) >= 0;) {
        if (!sends(gather, model, index, r, &w))
            continue;
        char *buffer = gather->buffers[r].data;
        if (r == member)
            ND_TRY(pack(gather, model, index, &w, nd_as_const(masters[index]), whole,
                        buffer ? buffer + a->end[r] : NULL));
        a->end[r] += bytes_of(gather, model, index, &w, whole);
    }
    return ND_OK;
}

/* Unpacks what rank r sent. */
static nd_status take(nd_weight_gather *gather, nd_model *model, bool whole, int r)
{
    nd_backend *b = model->backend;
    char *at = gather->buffers[r].data;
    nd_weight w;
    for (int64_t k = 0; k < gather->added.count; k++) {
        const int64_t index = gather->added.order[k];
        if (!sends(gather, model, index, r, &w))
            continue;
        if (!whole && sends_change(gather, model, index))
            ND_TRY(nd_weight_delta_apply(b, &w, gather->scratch, at));
        else
            ND_TRY(nd_weight_wire_unpack(b, &w, gather->codes, at));
        at += bytes_of(gather, model, index, &w, whole);
    }
    return ND_OK;
}

static size_t waiting_bytes(const nd_weight_gather *gather)
{
    size_t bytes = 0;
    for (int r = 0; r < gather->own->ranks; r++)
        bytes += gather->added.end[r] - gather->added.begun[r];
    return bytes;
}

typedef nd_status (*send_each)(nd_comm *comm, void *const *buffers, const size_t *bytes);

/* Sends what was added since the last exchange. */
static nd_status send_added(nd_weight_gather *gather, nd_comm *comm, send_each send)
{
    nd_added_weights *a = &gather->added;
    const size_t members = (size_t)gather->own->ranks;
    nd_sending *s = calloc(1, sizeof *s);
    ND_FAIL_IF(!s, ND_ENOMEM, "no memory for the table of %zu wire buffers", members);
    s->next = a->first;
    a->first = s;
    s->buffers = calloc(members, sizeof *s->buffers);
    s->bytes = calloc(members, sizeof *s->bytes);
    ND_FAIL_IF(!s->buffers || !s->bytes, ND_ENOMEM, "no memory for the table of %zu wire buffers",
               members);
    for (size_t r = 0; r < members; r++) {
        s->buffers[r] = (char *)gather->buffers[r].data + a->begun[r];
        s->bytes[r] = a->end[r] - a->begun[r];
        a->begun[r] = a->end[r];
    }
    return send(comm, s->buffers, s->bytes);
}

nd_status nd_weight_gather_add(nd_weight_gather *gather, nd_model *model, const nd_view *masters,
                               int64_t index, nd_comm *comm)
{
    const int ranks = gather->own->ranks;
    if (!gather->ahead || ranks == 1)
        return ND_OK;
    ND_TRY(add(gather, model, masters, index, false, nd_comm_member(comm)));
    return waiting_bytes(gather) < nd_weight_gather_least(ranks, nd_wire_part_bytes(comm))
               ? ND_OK
               : send_added(gather, comm, comm->ops.begin_broadcast_each);
}

static nd_status exchange(nd_weight_gather *gather, nd_model *model, bool whole, nd_comm *comm)
{
    if (gather->added.first)
        ND_TRY(comm->ops.finish(comm));
    ND_TRY(send_added(gather, comm, nd_comm_broadcast_each));
    for (int r = 0; r < gather->own->ranks; r++)
        if (r != nd_comm_member(comm))
            ND_TRY(take(gather, model, whole, r));
    return ND_OK;
}

nd_status nd_weight_gather_run(nd_weight_gather *gather, nd_model *model, const nd_view *masters,
                               bool whole, nd_comm *comm)
{
    const int ranks = gather->own->ranks;
    const int64_t count = whole ? gather->own->count : nd_mtp_trained_params(model);
    for (int64_t i = 0; i < count; i++)
        ND_TRY(add(gather, model, masters, i, whole, nd_comm_member(comm)));
    ND_TRY(ranks > 1 ? exchange(gather, model, whole, comm)
                     : load_streamed(gather, model, masters));
    forget_added(&gather->added, gather->own);
    return ranks > 1 && gather->codes == ND_WEIGHT_SYNC_DELTA
               ? nd_code_stream_run(&gather->stream, model, masters, whole, comm)
               : ND_OK;
}

void nd_weight_gather_discard(nd_weight_gather *gather)
{
    forget_added(&gather->added, gather->own);
}
