#include "dist/part_reduction.h"

#include "dist/gradient_wire.h"
#include "dist/tree_reduction.h"

#include <stdlib.h>
#include <string.h>

enum { LEVELS = 64 };

/* What this rank does with a part. */
typedef struct act {
    nd_tree_act tree;
    int32_t part;
    int64_t piece;
} act;

struct nd_part_reduction {
    nd_comm *comm;
    nd_wire *wire;
    nd_gradient_transfer transfer;
    act *acts;  /* as the tree is walked */
    act *order; /* by level */
    int64_t count, capacity;
    nd_comm_piece *pieces; /* of the reduction at hand */
    act at;                /* of the walk: its part and piece */
    const char *subject;   /* last told */
};

nd_status nd_part_reduction_create(nd_comm *comm, nd_wire *wire, nd_part_reduction **reduction)
{
    nd_part_reduction *made = calloc(1, sizeof *made);
    if (!made)
        return ND_FAIL(ND_ENOMEM, "no memory for reductions");
    made->comm = comm;
    made->wire = wire;
    const nd_status status = nd_gradient_transfer_create(comm, &made->transfer);
    if (status != ND_OK)
        free(made);
    else
        *reduction = made;
    return status;
}

void nd_part_reduction_destroy(nd_part_reduction *r)
{
    if (!r)
        return;
    nd_gradient_transfer_destroy(&r->transfer);
    free(r->acts);
    free(r->order);
    free(r);
}

/* -- who does what when ----------------------------------------------------------------------- */

static nd_status grow(nd_part_reduction *r)
{
    const int64_t capacity = r->capacity > 0 ? 2 * r->capacity : 256;
    act *acts = realloc(r->acts, (size_t)capacity * sizeof *acts);
    r->acts = acts ? acts : r->acts;
    act *order = acts ? realloc(r->order, (size_t)capacity * sizeof *order) : NULL;
    r->order = order ? order : r->order;
    if (!order)
        return ND_FAIL(ND_ENOMEM, "no memory for %lld messages of a reduction",
                       (long long)capacity);
    r->capacity = capacity;
    return ND_OK;
}

static nd_status note(void *context, const nd_tree_act *tree)
{
    nd_part_reduction *r = context;
    if (r->count == r->capacity)
        ND_TRY(grow(r));
    r->acts[r->count++] = (act){*tree, r->at.part, r->at.piece};
    return ND_OK;
}

static size_t bytes_of(const nd_comm_piece *piece)
{
    return nd_gradient_wire_bytes(piece->format, piece->count);
}

/* Part k of every piece, then part k + 1. Turns count bytes in units of the longest part, so that short parts
 * among long ones do not always fall to the same ranks. */
static nd_status walk(nd_part_reduction *r, nd_comm_split split, int64_t count)
{
    const size_t size = nd_wire_part_bytes(r->comm);
    size_t longest = 1, before = 0;
    bool more = true;
    int slot;
    r->count = 0;
    for (int64_t i = 0; i < count; i++) {
        const size_t bytes = bytes_of(&r->pieces[i]), part = bytes < size ? bytes : size;
        longest = part > longest ? part : longest;
        r->pieces[i].result = NULL;
    }
    for (int32_t part = 0; more; part++) {
        more = false;
        for (int64_t i = 0; i < count; i++) {
            nd_comm_piece *piece = &r->pieces[i];
            const size_t bytes = bytes_of(piece);
            if (part > 0 && nd_wire_parts(bytes, size) <= part)
                continue;
            const size_t length = (size_t)nd_wire_part_length(bytes, part, size);
            r->at = (act){.part = part, .piece = i};
            ND_TRY(nd_tree_walk(r->comm->rank, r->comm->size, split, piece->owner,
                                (int64_t)((before + length / 2) / longest), note, r, &slot));
            piece->result = slot >= 0 ? piece->slots[slot] : NULL;
            before += length;
            more |= nd_wire_parts(bytes, size) > part + 1;
        }
    }
    return ND_OK;
}

/* Stable. */
static void sort_by_level(nd_part_reduction *r)
{
    int64_t starts[LEVELS + 1] = {0};
    for (int64_t i = 0; i < r->count; i++)
        starts[r->acts[i].tree.level + 1]++;
    for (int level = 0; level < LEVELS; level++)
        starts[level + 1] += starts[level];
    for (int64_t i = 0; i < r->count; i++)
        r->order[starts[r->acts[i].tree.level]++] = r->acts[i];
}

/* -- doing it --------------------------------------------------------------------------------- */

typedef struct span {
    size_t at;
    int bytes;
} span;

static span span_of(const nd_part_reduction *r, const act *a)
{
    const size_t size = nd_wire_part_bytes(r->comm);
    return (span){nd_wire_part_start(a->part, size),
                  nd_wire_part_length(bytes_of(&r->pieces[a->piece]), a->part, size)};
}

static void tell_subject(nd_part_reduction *r, const nd_comm_piece *piece)
{
    if (r->subject != piece->name)
        nd_wire_subject(r->wire, piece->name);
    r->subject = piece->name;
}

/* What has been started, and where the next receive is among the acts. */
typedef struct progress {
    int64_t sends, receives, taken, ahead;
} progress;

static nd_status open_receives(nd_part_reduction *r, progress *p)
{
    for (; p->ahead < r->count && p->receives < p->taken + ND_WIRE_DEPTH; p->ahead++) {
        const act *a = &r->order[p->ahead];
        if (a->tree.kind == ND_TREE_RECEIVE)
            ND_TRY(nd_wire_start_receive(r->wire, p->receives++, NULL, span_of(r, a).bytes,
                                         a->tree.peer));
    }
    return ND_OK;
}

static nd_status receive(nd_part_reduction *r, const act *a, progress *p)
{
    const span s = span_of(r, a);
    ND_TRY(nd_wire_finish_receive(r->wire, p->taken));
    ND_TRY(nd_gradient_part_add(&r->transfer, &r->pieces[a->piece], a->tree.slot,
                                nd_wire_received(r->wire, p->taken), s.at, (size_t)s.bytes));
    p->taken++;
    return ND_OK;
}

static nd_status send(nd_part_reduction *r, const act *a, progress *p)
{
    const nd_comm_piece *piece = &r->pieces[a->piece];
    const span s = span_of(r, a);
    const void *data = NULL;
    if (p->sends >= ND_WIRE_DEPTH)
        ND_TRY(nd_wire_finish_send(r->wire, p->sends - ND_WIRE_DEPTH));
    if (piece->format == ND_GRADIENT_WIRE_FP32 && !r->comm->device)
        data = (const char *)piece->slots[a->tree.slot] + s.at;
    else
        ND_TRY(nd_gradient_part_make(&r->transfer, piece, a->tree.slot,
                                     nd_wire_room(r->wire, p->sends), s.at, (size_t)s.bytes));
    return nd_wire_start_send(r->wire, p->sends++, data, s.bytes, a->tree.peer);
}

static nd_status add(nd_part_reduction *r, const act *a)
{
    const nd_comm_piece *piece = &r->pieces[a->piece];
    const span s = span_of(r, a);
    const int64_t first = nd_gradient_wire_values(piece->format, s.at);
    return nd_tree_add(r->comm, piece->slots[a->tree.slot] + first,
                       piece->slots[a->tree.other] + first,
                       nd_gradient_wire_values(piece->format, (size_t)s.bytes));
}

static nd_status work_off(nd_part_reduction *r)
{
    progress p = {0};
    r->subject = NULL;
    for (int64_t i = 0; i < r->count; i++) {
        const act *a = &r->order[i];
        tell_subject(r, &r->pieces[a->piece]);
        ND_TRY(open_receives(r, &p));
        if (a->tree.kind == ND_TREE_RECEIVE)
            ND_TRY(receive(r, a, &p));
        else if (a->tree.kind == ND_TREE_SEND)
            ND_TRY(send(r, a, &p));
        else
            ND_TRY(add(r, a));
    }
    for (int64_t i = p.sends > ND_WIRE_DEPTH ? p.sends - ND_WIRE_DEPTH : 0; i < p.sends; i++)
        ND_TRY(nd_wire_finish_send(r->wire, i));
    return ND_OK;
}

nd_status nd_part_reduction_run(nd_part_reduction *r, nd_comm_split split, nd_comm_piece *pieces,
                                int64_t count)
{
    r->pieces = pieces;
    ND_TRY(walk(r, split, count));
    sort_by_level(r);
    const nd_status status = work_off(r);
    if (status != ND_OK)
        nd_wire_give_up(r->wire);
    return status;
}
