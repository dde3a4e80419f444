#include "nccl_parts.h"

#include "dist/gradient_wire.h"

#include <stdlib.h>

/* What a rank takes at most of the parts of a window whose turns end in the same bits. */
typedef struct nd_nccl_load {
    size_t bytes;
    int parts;
} load;

/* The launch at hand. */
typedef struct launch {
    const nd_nccl_link *link;
    nd_status (*call)(void *context, const nd_gradient_part *parts, int count);
    nd_gradient_part parts[ND_GRADIENT_PARTS];
    int count;
} launch;

void nd_nccl_parts_destroy(nd_nccl_parts *p)
{
    nd_part_schedule_destroy(&p->schedule);
    free(p->loads);
    p->loads = NULL;
    p->load_capacity = 0;
}

static nd_status flush(launch *l)
{
    const int count = l->count;
    l->count = 0;
    return count > 0 ? l->call(l->link->context, l->parts, count) : ND_OK;
}

static nd_status append(launch *l, nd_gradient_part part)
{
    if (l->count == ND_GRADIENT_PARTS)
        ND_TRY(flush(l));
    l->parts[l->count++] = part;
    return ND_OK;
}

/* So that all parts in scratch are aligned. */
static size_t room_of(size_t bytes)
{
    return (bytes + ND_WIRE_BLOCK_BYTES - 1) / ND_WIRE_BLOCK_BYTES * ND_WIRE_BLOCK_BYTES;
}

/* -- a window --------------------------------------------------------------------------------- */

/* The format of the act's message. */
static nd_gradient_wire format_of(const nd_nccl_parts *p, const nd_part_act *a)
{
    return a->tree.finished ? ND_GRADIENT_WIRE_FP32 : p->pieces[a->piece].format;
}

static float *values_of(const nd_nccl_parts *p, const nd_part_act *a, int slot)
{
    return p->pieces[a->piece].slots[slot] + nd_gradient_wire_values(format_of(p, a), a->at);
}

static bool is_encoded(const nd_nccl_parts *p, const nd_part_act *a)
{
    return a->tree.kind == ND_TREE_SEND && format_of(p, a) != ND_GRADIENT_WIRE_FP32;
}

static nd_status encode(nd_nccl_parts *p, const nd_part_act *acts, int64_t count)
{
    launch l = {.link = &p->link, .call = p->link.encode};
    char *out = p->scratch + p->window_bytes;
    for (int64_t i = 0; i < count; i++) {
        const nd_part_act *a = &acts[i];
        if (!is_encoded(p, a))
            continue;
        const nd_gradient_wire format = format_of(p, a);
        const int64_t first = nd_gradient_wire_values(format, a->at);
        char *residual = p->pieces[a->piece].residual;
        nd_gradient_part part = {.values = values_of(p, a, a->tree.slot),
                                 .wire = out,
                                 .count = nd_gradient_wire_values(format, a->bytes),
                                 .format = (int)format};
        if (residual)
            part.residual = residual + nd_gradient_residual_bytes(format, first);
        /* Two slots of a part have one residual, in this order. */
        if (l.count > 0 && residual && l.parts[l.count - 1].residual == part.residual)
            ND_TRY(flush(&l));
        ND_TRY(append(&l, part));
        out += room_of(a->bytes);
    }
    return flush(&l);
}

static nd_status exchange(nd_nccl_parts *p, const nd_part_act *acts, int64_t count)
{
    const nd_nccl_link *link = &p->link;
    char *in = p->scratch, *out = p->scratch + p->window_bytes;
    int64_t additions = 0;
    for (int64_t i = 0; i < count; i++)
        additions += acts[i].tree.kind == ND_TREE_ADD;
    if (additions == count)
        return ND_OK;
    ND_TRY(link->group_start(link->context));
    for (int64_t i = 0; i < count; i++) {
        const nd_part_act *a = &acts[i];
        if (a->tree.kind == ND_TREE_SEND) {
            const bool encoded = is_encoded(p, a);
            const void *data = encoded ? out : (const void *)values_of(p, a, a->tree.slot);
            out += encoded ? room_of(a->bytes) : 0;
            p->comm->bytes_sent += a->bytes;
            ND_TRY(link->send(link->context, data, a->bytes, a->tree.peer));
        } else if (a->tree.kind == ND_TREE_RECEIVE) {
            ND_TRY(link->receive(link->context, in, a->bytes, a->tree.peer));
            in += room_of(a->bytes);
        } else if (a->tree.kind == ND_TREE_TAKE) {
            ND_TRY(link->receive(link->context, values_of(p, a, a->tree.slot), a->bytes,
                                 a->tree.peer));
        }
    }
    return link->group_end(link->context);
}

static nd_status add(nd_nccl_parts *p, const nd_part_act *acts, int64_t count)
{
    launch l = {.link = &p->link, .call = p->link.add};
    char *in = p->scratch;
    for (int64_t i = 0; i < count; i++) {
        const nd_part_act *a = &acts[i];
        const nd_gradient_wire format = format_of(p, a);
        nd_gradient_part part = {.count = nd_gradient_wire_values(format, a->bytes)};
        if (a->tree.kind == ND_TREE_ADD) {
            part.wire = values_of(p, a, a->tree.other);
            part.format = ND_GRADIENT_WIRE_FP32;
        } else if (a->tree.kind == ND_TREE_RECEIVE) {
            part.wire = in;
            part.format = (int)format;
            in += room_of(a->bytes);
        } else {
            continue;
        }
        part.values = values_of(p, a, a->tree.slot);
        ND_TRY(append(&l, part));
    }
    return flush(&l);
}

static nd_status run_window(nd_nccl_parts *p, const nd_part_act *acts, int64_t count)
{
    ND_TRY(encode(p, acts, count));
    ND_TRY(exchange(p, acts, count));
    return add(p, acts, count);
}

/* -- which parts are in it -------------------------------------------------------------------- */

/* How windows of a level are counted. */
typedef struct level {
    int bits;    /* of turns, which say who takes a part */
    bool passes; /* finished sums, which go where they stay */
    int times;   /* a rank may take, or send, so many messages of a part */
} level;

static level level_of(const nd_nccl_parts *p, nd_comm_split split, int64_t count, int number)
{
    const nd_comm_piece *piece = &p->pieces[0];
    for (int64_t i = 1; i < count; i++)
        if (p->pieces[i].format != ND_GRADIENT_WIRE_FP32)
            piece = &p->pieces[i];
    const nd_tree tree = nd_tree_of(p->comm, split, piece, 0);
    const int64_t leaves = split.leaves / p->comm->size;
    /* Who has leaves that are no whole block meets others at both of their ends. */
    return (level){.bits = nd_tree_turn_bits(&tree, number),
                   .passes = number > nd_tree_top(&tree),
                   .times = (leaves & (leaves - 1)) == 0 ? 1 : 2};
}

static void empty(nd_nccl_parts *p, level at)
{
    for (int i = 0; i < 1 << at.bits; i++)
        p->loads[i] = (load){0};
}

/* False: it belongs to the next window. */
static bool fits(nd_nccl_parts *p, level at, const nd_part *part)
{
    load *l = &p->loads[part->turn & (((int64_t)1 << at.bits) - 1)];
    const size_t bytes = at.passes ? 0 : (size_t)at.times * room_of(part->bytes);
    if (l->parts == ND_NCCL_WINDOW_PARTS || l->bytes + bytes > p->window_bytes)
        return false;
    l->parts++;
    l->bytes += bytes;
    return true;
}

/* `acts` are those of one level. */
static nd_status run_level(nd_nccl_parts *p, level at, const nd_part_act *acts, int64_t count)
{
    nd_part_order order = p->schedule.order;
    nd_part part;
    int64_t begun = 0, next = 0;
    empty(p, at);
    for (int64_t number = 0; nd_part_next(&order, &part); number++) {
        if (!fits(p, at, &part)) {
            ND_TRY(run_window(p, acts + begun, next - begun));
            begun = next;
            empty(p, at);
            fits(p, at, &part);
        }
        while (next < count && acts[next].number == number)
            next++;
    }
    return run_window(p, acts + begun, count - begun);
}

static nd_status take_loads(nd_nccl_parts *p)
{
    if (p->load_capacity >= p->comm->size)
        return ND_OK;
    load *loads = realloc(p->loads, (size_t)p->comm->size * sizeof *loads);
    ND_FAIL_IF(!loads, ND_ENOMEM, "no memory for a reduction over %d ranks", p->comm->size);
    p->loads = loads;
    p->load_capacity = p->comm->size;
    return ND_OK;
}

nd_status nd_nccl_parts_reduce(nd_nccl_parts *p, nd_comm_split split, nd_comm_piece *pieces,
                               int64_t count)
{
    const nd_part_schedule *s = &p->schedule;
    bool rounds = false;
    for (int64_t i = 0; i < count; i++)
        rounds |= pieces[i].format != ND_GRADIENT_WIRE_FP32;
    const size_t part_bytes =
        rounds ? nd_reduction_part_bytes(nd_wire_part_bytes(p->comm), true) : p->part_bytes;
    ND_TRY(take_loads(p));
    ND_TRY(nd_part_schedule_make(&p->schedule, p->comm, part_bytes, split, pieces, count));
    p->pieces = pieces;
    for (int64_t first = 0, end; first < s->count; first = end) {
        const int number = s->acts[first].tree.level;
        for (end = first; end < s->count && s->acts[end].tree.level == number;)
            end++;
        ND_TRY(run_level(p, level_of(p, split, count, number), s->acts + first, end - first));
    }
    return ND_OK;
}
