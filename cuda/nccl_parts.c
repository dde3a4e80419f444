#include "nccl_parts.h"

#include "dist/reduction/gradient_wire.h"

#include <stdlib.h>
#include <string.h>

/* What a rank takes at most of the parts of a window whose turns end in the same bits. */
typedef struct nd_nccl_load {
    size_t bytes;
    int parts;
} load;

/* The launch at hand. */
typedef struct launch {
    const nd_nccl_link *link;
    nd_status (*call)(void *context, nd_nccl_queue queue, const nd_gradient_part *parts, int count);
    nd_nccl_queue queue;
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
    return count > 0 ? l->call(l->link->context, l->queue, l->parts, count) : ND_OK;
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

size_t nd_nccl_parts_scratch(bool by_host, size_t window_bytes)
{
    return (by_host ? 8 : 4) * window_bytes;
}

/* Where the messages of a level go, and who adds what comes. */
static nd_nccl_queue adds_of(nd_nccl_queue queue)
{
    return queue == ND_NCCL_HOST ? ND_NCCL_HOST_ADDS : ND_NCCL_ALL_ADDS;
}

/* Of the window at hand: windows of a communicator take turns with two. */
static char *memory_of(const nd_nccl_parts *p, nd_nccl_queue queue, bool encoded)
{
    const int communicators = p->link.by_host ? 2 : 1;
    const int at = ((encoded ? communicators : 0) + (int)queue) * 2 + p->half[queue];
    return p->scratch + (size_t)at * p->window_bytes;
}

static nd_status order(const nd_nccl_parts *p, nd_nccl_queue first, nd_nccl_queue second)
{
    return p->link.order(p->link.context, first, second);
}

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

static nd_status encode(nd_nccl_parts *p, nd_nccl_queue queue, const nd_part_act *acts,
                        int64_t count)
{
    launch l = {.link = &p->link, .call = p->link.encode, .queue = queue};
    char *out = memory_of(p, queue, true);
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

static nd_status exchange(nd_nccl_parts *p, nd_nccl_queue queue, const nd_part_act *acts,
                          int64_t count)
{
    const nd_nccl_link *link = &p->link;
    char *in = memory_of(p, queue, false), *out = memory_of(p, queue, true);
    int64_t additions = 0;
    for (int64_t i = 0; i < count; i++)
        additions += acts[i].tree.kind == ND_TREE_ADD;
    if (additions == count)
        return ND_OK;
    ND_TRY(link->group_start(link->context, queue));
    for (int64_t i = 0; i < count; i++) {
        const nd_part_act *a = &acts[i];
        if (a->tree.kind == ND_TREE_SEND) {
            const bool encoded = is_encoded(p, a);
            const void *data = encoded ? out : (const void *)values_of(p, a, a->tree.slot);
            out += encoded ? room_of(a->bytes) : 0;
            p->comm->bytes_sent += a->bytes;
            ND_TRY(link->send(link->context, queue, data, a->bytes, a->tree.peer));
        } else if (a->tree.kind == ND_TREE_RECEIVE) {
            ND_TRY(link->receive(link->context, queue, in, a->bytes, a->tree.peer));
            in += room_of(a->bytes);
        } else if (a->tree.kind == ND_TREE_TAKE) {
            ND_TRY(link->receive(link->context, queue, values_of(p, a, a->tree.slot), a->bytes,
                                 a->tree.peer));
        }
    }
    return link->group_end(link->context, queue);
}

static nd_status add(nd_nccl_parts *p, nd_nccl_queue queue, const nd_part_act *acts, int64_t count)
{
    launch l = {.link = &p->link, .call = p->link.add, .queue = adds_of(queue)};
    char *in = memory_of(p, queue, false);
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

/* The next window is exchanged while this one is added up, and waits for the one before, whose
 * memory it has. */
static nd_status run_window(nd_nccl_parts *p, nd_nccl_queue queue, const nd_part_act *acts,
                            int64_t count)
{
    if (count == 0)
        return ND_OK;
    ND_TRY(encode(p, queue, acts, count));
    ND_TRY(exchange(p, queue, acts, count));
    ND_TRY(order(p, adds_of(queue), queue));
    ND_TRY(order(p, queue, adds_of(queue)));
    ND_TRY(add(p, queue, acts, count));
    p->half[queue] ^= 1;
    return ND_OK;
}

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

/* Parts of consecutive numbers. */
typedef struct batch {
    nd_part_order first, next; /* at its first part, and at the next batch's */
    int64_t number, end;       /* of its first part, and of the next batch's */
} batch;

/* What this rank does at the level in the batch: `acts`. */
static nd_status run_level(nd_nccl_parts *p, nd_nccl_queue queue, level at, const batch *b,
                           const nd_part_act *acts, int64_t count)
{
    nd_part_order order_of_parts = b->first;
    nd_part part;
    int64_t begun = 0, next = 0;
    empty(p, at);
    for (int64_t number = b->number; number < b->end; number++) {
        nd_part_next(&order_of_parts, &part);
        if (!fits(p, at, &part)) {
            ND_TRY(run_window(p, queue, acts + begun, next - begun));
            begun = next;
            empty(p, at);
            fits(p, at, &part);
        }
        while (next < count && acts[next].number == number)
            next++;
    }
    ND_TRY(run_window(p, queue, acts + begun, count - begun));
    return order(p, adds_of(queue), queue); /* what the next level sends */
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

/* The reduction at hand. */
typedef struct reduction {
    nd_nccl_parts *parts;
    nd_comm_split split;
    int64_t count;                /* pieces */
    int first_between;            /* the lowest level with messages between hosts */
    int64_t next[ND_PART_LEVELS]; /* of each level's acts, not enqueued yet */
} reduction;

static int first_between(const nd_nccl_parts *p, nd_comm_split split)
{
    const nd_comm *comm = p->comm;
    const int host = split.any_order ? comm->host_ranks : comm->local_size;
    const int within = p->link.by_host ? nd_tree_levels_within(split, comm->size, host) : 0;
    return within > 0 ? within + 1 : 0;
}

/* The part of a level's acts that is in the batch. */
static nd_status run_levels(reduction *r, nd_nccl_queue queue, const batch *b)
{
    nd_nccl_parts *p = r->parts;
    const nd_part_schedule *s = &p->schedule;
    for (int number = 0; number < ND_PART_LEVELS; number++) {
        const int64_t first = r->next[number];
        int64_t end = first;
        if ((number < r->first_between) != (queue == ND_NCCL_HOST))
            continue;
        while (end < s->starts[number + 1] && s->acts[end].number < b->end)
            end++;
        r->next[number] = end;
        if (end > first)
            ND_TRY(run_level(p, queue, level_of(p, r->split, r->count, number), b, s->acts + first,
                             end - first));
    }
    return ND_OK;
}

/* False: there is none. */
static bool next_batch(const reduction *r, batch *b)
{
    const nd_nccl_parts *p = r->parts;
    const size_t most =
        r->first_between > 0 ? 2 * p->window_bytes * (size_t)p->comm->local_size : SIZE_MAX;
    nd_part_order *next = &b->next;
    nd_part part;
    size_t bytes = 0;
    b->first = *next;
    b->number = b->end;
    while (bytes < most && nd_part_next(next, &part)) {
        bytes += part.bytes;
        b->end++;
    }
    return b->end > b->number;
}

static nd_status run_batches(reduction *r)
{
    const nd_nccl_parts *p = r->parts;
    batch next = {.next = p->schedule.order}, now;
    bool more = next_batch(r, &next);
    ND_TRY(more ? run_levels(r, ND_NCCL_HOST, &next) : ND_OK);
    while (more) {
        now = next;
        if (r->first_between > 0)
            ND_TRY(order(p, ND_NCCL_HOST_ADDS, ND_NCCL_ALL));
        more = next_batch(r, &next);
        if (more)
            ND_TRY(run_levels(r, ND_NCCL_HOST, &next));
        ND_TRY(run_levels(r, ND_NCCL_ALL, &now));
    }
    return ND_OK;
}

nd_status nd_nccl_parts_reduce(nd_nccl_parts *p, nd_comm_split split, nd_comm_piece *pieces,
                               int64_t count)
{
    const nd_part_schedule *s = &p->schedule;
    reduction r = {.parts = p, .split = split, .count = count};
    bool rounds = false;
    for (int64_t i = 0; i < count; i++)
        rounds |= pieces[i].format != ND_GRADIENT_WIRE_FP32;
    const size_t part_bytes =
        rounds ? nd_reduction_part_bytes(nd_wire_part_bytes(p->comm), true) : p->part_bytes;
    ND_TRY(take_loads(p));
    ND_TRY(nd_part_schedule_make(&p->schedule, p->comm, part_bytes, split, pieces, count));
    p->pieces = pieces;
    r.first_between = first_between(p, split);
    memcpy(r.next, s->starts, sizeof r.next);
    return run_batches(&r);
}
