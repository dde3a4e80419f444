#include "dist/weights/code_stream.h"

#include "core/base/trits.h"
#include "dist/weights/changed_codes.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64, ROOM = 4 /* at most a fourth of what all ranks could send */ };

/* Precedes the codes of each matrix: scales, and the length of what
 * follows (dist/weights/code_kernels.h). */
static const uint32_t all_codes = ND_CODES_WHOLE;

static size_t all_bytes(const nd_weight *w)
{
    return (size_t)nd_trits_bytes(nd_view_count(nd_as_const(w->codes)));
}

static size_t aligned(uint64_t bytes)
{
    return (size_t)((bytes + ALIGN - 1) / ALIGN * ALIGN);
}

static size_t stream_bytes(const nd_model *model, const nd_ownership *own, int rank)
{
    size_t bytes = 0;
    for (int64_t i = 0; i < own->count; i++) {
        const nd_weight *w = &model->weights[i];
        if (own->owner[i] == rank && w->ternary)
            bytes += nd_view_bytes(nd_as_const(w->scales)) + sizeof all_codes + all_bytes(w);
    }
    return bytes;
}

nd_status nd_code_stream_reserve(nd_code_stream *s, const nd_model *model, const nd_ownership *own,
                                 int rank, nd_arena *arena)
{
    const int64_t largest = nd_params_largest(&model->params, ND_ROLE_TERNARY);
    const size_t mine = stream_bytes(model, own, rank);
    size_t theirs = 0, all = 0;
    s->own = own;
    if (own->ranks == 1)
        return ND_OK;
    for (int r = 0; r < own->ranks; r++) {
        const size_t bytes = aligned(stream_bytes(model, own, r));
        theirs = bytes > theirs ? bytes : theirs;
        all += bytes;
    }
    theirs = theirs > all / ROOM ? theirs : aligned(all / ROOM); /* the same on all ranks */
    if (s->kernels) {
        const size_t work = s->kernels->work_bytes(largest, (int64_t)theirs);
        ND_TRY(nd_arena_reserve(arena, ND_U8, 1, sizeof(uint64_t), &s->at));
        ND_TRY(nd_arena_reserve(arena, ND_U8, 1, (int64_t)work, &s->work));
    }
    if (s->kernels || arena->backend->ops.host_memory) {
        ND_TRY(nd_arena_reserve(arena, ND_U8, 1, (int64_t)mine, &s->mine));
        ND_TRY(nd_arena_reserve(arena, ND_U8, 1, (int64_t)theirs, &s->theirs));
        return nd_arena_reserve(arena, ND_I8, 1, largest, &s->before);
    }
    if (!arena->memory || s->host)
        return ND_OK;
    char *host = malloc(mine + theirs + 2 * (size_t)largest);
    ND_FAIL_IF(!host, ND_ENOMEM, "no memory for streams of codes");
    s->host = host;
    s->mine = nd_view_of(host, ND_U8, 1, (int64_t)mine);
    s->theirs = nd_view_of(host + mine, ND_U8, 1, (int64_t)theirs);
    s->before = nd_view_of(host + mine + theirs, ND_I8, 1, largest);
    s->now = nd_view_of(host + mine + theirs + largest, ND_I8, 1, largest);
    return ND_OK;
}

void nd_code_stream_destroy(nd_code_stream *s)
{
    free(s->host);
    s->host = NULL;
}

/* The codes of a weight in host memory: in place, or copied to `scratch`. */
static nd_status read_codes(nd_backend *b, const nd_weight *w, nd_view scratch, int8_t **codes)
{
    *codes = w->codes.data;
    if (b->ops.host_memory)
        return ND_OK;
    *codes = scratch.data;
    return b->ops.download(b, scratch.data, w->codes.data, nd_view_bytes(nd_as_const(w->codes)));
}

static nd_status make_entry(const nd_code_stream *s, nd_model *model, int64_t index,
                            nd_cview master, bool whole, char **at)
{
    nd_backend *b = model->backend;
    const nd_weight *w = &model->weights[index];
    const size_t scales = nd_view_bytes(nd_as_const(w->scales)), scratch = all_bytes(w);
    const int64_t count = nd_view_count(nd_as_const(w->codes));
    int8_t *now;
    size_t used = scratch + 1;
    ND_TRY(nd_weight_unpack(b, w));
    ND_TRY(b->ops.download(b, s->before.data, w->codes.data, (size_t)count));
    ND_TRY(nd_model_load_weight(model, index, master));
    ND_TRY(read_codes(b, w, s->now, &now));
    ND_TRY(b->ops.download(b, *at, w->scales.data, scales));
    uint8_t *codes = (uint8_t *)*at + scales + sizeof all_codes;
    if (!whole)
        used = nd_changed_codes_encode(s->before.data, now, count, codes, scratch);
    const uint32_t length = used > scratch ? all_codes : (uint32_t)used;
    memcpy(*at + scales, &length, sizeof length);
    if (length == all_codes)
        nd_trits_pack(codes, now, count, 0, (int64_t)scratch);
    *at += scales + sizeof length + (length == all_codes ? scratch : used);
    return ND_OK;
}

static nd_status take_entry(const nd_code_stream *s, nd_model *model, int64_t index, char **at,
                            const char *end)
{
    nd_backend *b = model->backend;
    const nd_weight *w = &model->weights[index];
    const size_t scales = nd_view_bytes(nd_as_const(w->scales));
    const int64_t count = nd_view_count(nd_as_const(w->codes));
    int8_t *codes;
    uint32_t length = 0;
    if ((size_t)(end - *at) >= scales + sizeof length)
        memcpy(&length, *at + scales, sizeof length);
    const size_t bytes = length == all_codes ? all_bytes(w) : length;
    if ((size_t)(end - *at) < scales + sizeof length + bytes)
        return ND_FAIL(ND_EPEER, "the codes of %s are cut short", model->params.list[index].name);
    const uint8_t *in = (const uint8_t *)*at + scales + sizeof length;
    ND_TRY(b->ops.upload(b, w->scales.data, *at, scales));
    ND_TRY(nd_weight_unpack(b, w));
    ND_TRY(read_codes(b, w, s->before, &codes));
    if (length == all_codes)
        nd_trits_unpack(codes, in, count, 0, (int64_t)bytes);
    else
        ND_TRY(nd_changed_codes_apply(codes, count, in, bytes));
    if (!b->ops.host_memory)
        ND_TRY(b->ops.upload(b, w->codes.data, codes, (size_t)count));
    *at += scales + sizeof length + bytes;
    return nd_weight_pack(b, w);
}

typedef nd_status (*send_streams)(nd_comm *comm, void *const *buffers, const size_t *bytes);
typedef nd_status (*take_stream)(nd_code_stream *s, nd_model *model, int rank, char *stream,
                                 uint64_t bytes);

/* Messages that are sent together: those of members [first, end) of the group. */
typedef struct batch {
    int first, end;
    void **buffers; /* [ranks] */
    size_t *bytes;  /* [ranks] 0 for ranks outside the batch */
} batch;

/* Collects the messages of ranks from `first` on that fit; announced lengths are not trusted. */
static nd_status fill_batch(const nd_code_stream *s, const uint64_t *announced, int member,
                            batch *b)
{
    const size_t capacity = (size_t)s->theirs.cols;
    size_t used = 0;
    memset(b->bytes, 0, (size_t)s->own->ranks * sizeof *b->bytes);
    for (int r = b->end = b->first; r < s->own->ranks; b->end = ++r) {
        if (announced[r] > capacity || (r == member && announced[r] > (size_t)s->mine.cols))
            return ND_FAIL(ND_EPEER, "member %d of a group announces %llu bytes of codes", r,
                           (unsigned long long)announced[r]);
        if (used + aligned(announced[r]) > capacity)
            return ND_OK;
        b->buffers[r] = r == member ? s->mine.data : (char *)s->theirs.data + used;
        b->bytes[r] = (size_t)announced[r];
        used += aligned(announced[r]);
    }
    return ND_OK;
}

/* Sends s->mine with the announced length and receives the others' messages. */
static nd_status exchange(nd_code_stream *s, nd_model *model, nd_comm *comm,
                          const uint64_t *announced, send_streams send, take_stream take)
{
    const int member = nd_comm_member(comm);
    ND_AUTOFREE void **buffers = calloc((size_t)s->own->ranks, sizeof *buffers);
    ND_AUTOFREE size_t *bytes = calloc((size_t)s->own->ranks, sizeof *bytes);
    ND_FAIL_IF(!buffers || !bytes, ND_ENOMEM, "no memory for the streams of %d ranks",
               s->own->ranks);
    for (batch b = {0, 0, buffers, bytes}; b.first < s->own->ranks; b.first = b.end) {
        ND_TRY(fill_batch(s, announced, member, &b));
        ND_TRY(send(comm, buffers, bytes));
        for (int r = b.first; r < b.end; r++)
            if (r != member)
                ND_TRY(take(s, model, r, buffers[r], announced[r]));
    }
    return ND_OK;
}

/* Uses host memory even if comm has a device. */
static nd_status send_by_host(nd_comm *comm, void *const *buffers, const size_t *bytes)
{
    if (comm->ops.broadcast_each)
        return comm->ops.broadcast_each(comm, buffers, bytes);
    for (int r = 0; r < nd_comm_group(comm); r++)
        ND_TRY(comm->ops.broadcast_group(comm, buffers[r], bytes[r], r));
    return ND_OK;
}

static nd_status take_by_host(nd_code_stream *s, nd_model *model, int rank, char *stream,
                              uint64_t bytes)
{
    char *from = stream;
    for (int64_t i = 0; i < s->own->count; i++)
        if (s->own->owner[i] == rank && model->weights[i].ternary)
            ND_TRY(take_entry(s, model, i, &from, stream + bytes));
    return ND_OK;
}

static nd_status exchange_by_host(nd_code_stream *s, nd_model *model, const nd_view *masters,
                                  bool whole, nd_comm *comm, uint64_t *bytes)
{
    char *at = s->mine.data;
    for (int64_t i = 0; i < s->own->count; i++)
        if (s->own->owner[i] == nd_comm_member(comm) && model->weights[i].ternary)
            ND_TRY(make_entry(s, model, i, nd_as_const(masters[i]), whole, &at));
    const uint64_t mine = (uint64_t)(at - (char *)s->mine.data);
    ND_TRY(comm->ops.allgather(comm, bytes, &mine, sizeof mine));
    return exchange(s, model, comm, bytes + nd_comm_group_first(comm), send_by_host, take_by_host);
}

static nd_code_entry entry_of(const nd_model *model, int64_t index)
{
    const nd_weight *w = &model->weights[index];
    return (nd_code_entry){.name = model->params.list[index].name,
                           .codes = w->codes.data,
                           .count = nd_view_count(nd_as_const(w->codes)),
                           .scales = w->scales.data,
                           .groups = nd_view_count(nd_as_const(w->scales))};
}

static nd_status make_on_device(const nd_code_stream *s, nd_model *model, int64_t index,
                                nd_cview master, bool whole)
{
    nd_backend *b = model->backend;
    const nd_weight *w = &model->weights[index];
    const nd_code_entry entry = entry_of(model, index);
    if (!whole) {
        ND_TRY(nd_weight_unpack(b, w));
        ND_TRY(b->ops.copy(b, s->before.data, entry.codes, (size_t)entry.count));
    }
    ND_TRY(nd_model_load_weight(model, index, master));
    return s->kernels->encode(b, &entry, s->before.data, whole, s->mine.data, s->at.data,
                              s->work.data);
}

static nd_status take_on_device(nd_code_stream *s, nd_model *model, int rank, char *stream,
                                uint64_t bytes)
{
    nd_backend *b = model->backend;
    ND_TRY(b->ops.zero(b, s->at.data, sizeof bytes));
    for (int64_t i = 0; i < s->own->count; i++) {
        const nd_weight *w = &model->weights[i];
        if (s->own->owner[i] != rank || !w->ternary)
            continue;
        const nd_code_entry entry = entry_of(model, i);
        ND_TRY(nd_weight_unpack(b, w));
        ND_TRY(s->kernels->decode(b, &entry, (const uint8_t *)stream, bytes, s->at.data,
                                  s->work.data));
        ND_TRY(nd_weight_pack(b, w));
    }
    return ND_OK;
}

static nd_status exchange_on_device(nd_code_stream *s, nd_model *model, const nd_view *masters,
                                    bool whole, nd_comm *comm, uint64_t *bytes)
{
    nd_backend *b = model->backend;
    uint64_t mine = 0;
    ND_TRY(b->ops.zero(b, s->at.data, sizeof mine));
    for (int64_t i = 0; i < s->own->count; i++)
        if (s->own->owner[i] == nd_comm_member(comm) && model->weights[i].ternary)
            ND_TRY(make_on_device(s, model, i, nd_as_const(masters[i]), whole));
    ND_TRY(b->ops.download(b, &mine, s->at.data, sizeof mine));
    ND_TRY(comm->ops.allgather(comm, bytes, &mine, sizeof mine));
    return exchange(s, model, comm, bytes + nd_comm_group_first(comm), nd_comm_broadcast_each,
                    take_on_device);
}

nd_status nd_code_stream_run(nd_code_stream *s, nd_model *model, const nd_view *masters, bool whole,
                             nd_comm *comm)
{
    ND_AUTOFREE uint64_t *bytes = calloc((size_t)comm->size, sizeof *bytes);
    ND_FAIL_IF(!bytes, ND_ENOMEM, "no memory for the lengths of %d streams", comm->size);
    return (s->kernels ? exchange_on_device : exchange_by_host)(s, model, masters, whole, comm,
                                                                bytes);
}
