#include "dist/part_reduction.h"

#include "dist/gradient_wire.h"
#include "dist/part_order.h"
#include "dist/shortening.h"
#include "dist/tree_reduction.h"

#include <stdlib.h>

enum { LEVELS = 64 };

/* What this rank does with a part. */
typedef struct act {
    nd_tree_act tree;
    int64_t piece;
    size_t at,
        bytes; /* of the message in the piece's format, or in fp32 where it is a finished sum */
} act;

struct nd_part_reduction {
    nd_comm *comm;
    nd_wire *wire;
    nd_gradient_transfer transfer;
    act *acts;  /* as the tree is walked */
    act *order; /* by level */
    int64_t count, capacity;
    nd_comm_piece *pieces; /* of the reduction at hand */
    size_t *bytes;         /* [pieces_capacity] of each on the wire */
    int64_t pieces_capacity;
    nd_part part; /* that is walked */
    nd_shortening shortening;
    const char *subject; /* last told */
};

nd_status nd_part_reduction_create(nd_comm *comm, nd_wire *wire, nd_part_reduction **reduction)
{
    nd_part_reduction *made = calloc(1, sizeof *made);
    ND_FAIL_IF(!made, ND_ENOMEM, "no memory for reductions");
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
    free(r->bytes);
    free(r);
}

/* -- who does what when ----------------------------------------------------------------------- */

static nd_status grow(nd_part_reduction *r)
{
    const int64_t capacity = r->capacity > 0 ? 2 * r->capacity : 256;
    act *acts = realloc(r->acts, (size_t)capacity * sizeof *acts);
    if (acts)
        r->acts = acts;
    act *order = acts ? realloc(r->order, (size_t)capacity * sizeof *order) : NULL;
    if (order)
        r->order = order;
    else
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
    act a = {*tree, r->part.piece, r->part.at, r->part.bytes};
    if (tree->finished) {
        const nd_gradient_wire format = r->pieces[a.piece].format;
        a.at = sizeof(float) * (size_t)nd_gradient_wire_values(format, a.at);
        a.bytes = sizeof(float) * (size_t)nd_gradient_wire_values(format, a.bytes);
    }
    r->acts[r->count++] = a;
    return ND_OK;
}

static nd_status walk(nd_part_reduction *r, nd_comm_split split, int64_t count)
{
    bool rounds = false;
    for (int64_t i = 0; i < count; i++)
        rounds |= r->pieces[i].format != ND_GRADIENT_WIRE_FP32;
    nd_part_order order = nd_part_order_of(
        r->bytes, count, nd_reduction_part_bytes(nd_wire_part_bytes(r->comm), rounds));
    r->count = 0;
    while (nd_part_next(&order, &r->part)) {
        nd_comm_piece *piece = &r->pieces[r->part.piece];
        const nd_tree tree = nd_tree_of(r->comm, split, piece, r->part.turn);
        int slot;
        ND_TRY(nd_tree_walk(r->comm->rank, &tree, note, r, &slot));
        piece->result = slot >= 0 ? piece->slots[slot] : NULL;
    }
    return ND_OK;
}

static nd_status take_pieces(nd_part_reduction *r, nd_comm_piece *pieces, int64_t count)
{
    r->pieces = pieces;
    if (count > r->pieces_capacity) {
        size_t *bytes = realloc(r->bytes, (size_t)count * sizeof *bytes);
        ND_FAIL_IF(!bytes, ND_ENOMEM, "no memory for a reduction of %lld pieces", (long long)count);
        r->bytes = bytes;
        r->pieces_capacity = count;
    }
    for (int64_t i = 0; i < count; i++)
        r->bytes[i] = nd_gradient_wire_bytes(pieces[i].format, pieces[i].count);
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

static void tell_subject(nd_part_reduction *r, const nd_comm_piece *piece)
{
    if (r->subject != piece->name)
        nd_wire_subject(r->wire, piece->name);
    r->subject = piece->name;
}

/* Sends that were started, that are at acts behind this rank, and that have left; receives that were started, and
 * taken; where the next of both is among the acts. */
typedef struct progress {
    int64_t sends, passed, left, next_send;
    int64_t receives, taken, next_receive;
} progress;

static nd_status open_receives(nd_part_reduction *r, progress *p)
{
    for (; p->next_receive < r->count && p->receives < p->taken + ND_WIRE_DEPTH;
         p->next_receive++) {
        const act *a = &r->order[p->next_receive];
        if (a->tree.kind == ND_TREE_RECEIVE || a->tree.kind == ND_TREE_TAKE)
            ND_TRY(
                nd_wire_start_receive(r->wire, p->receives++, NULL, (int)a->bytes, a->tree.peer));
    }
    return ND_OK;
}

static nd_status finish_sends(nd_part_reduction *r, progress *p)
{
    for (; p->left < p->sends; p->left++)
        ND_TRY(nd_wire_finish_send(r->wire, p->left));
    return ND_OK;
}

static nd_status receive(nd_part_reduction *r, const act *a, progress *p)
{
    const nd_comm_piece *piece = &r->pieces[a->piece];
    ND_TRY(nd_wire_finish_receive(r->wire, p->taken));
    const size_t came = (size_t)nd_wire_received_bytes(r->wire);
    const void *part = nd_wire_received(r->wire, p->taken++);
    if (came < a->bytes)
        return nd_shortened_part_take(piece, a->tree.slot, part, came, a->at, a->bytes,
                                      a->tree.kind == ND_TREE_RECEIVE);
    return a->tree.kind == ND_TREE_TAKE
               ? nd_gradient_part_take(&r->transfer, piece, a->tree.slot, part, a->at, a->bytes)
               : nd_gradient_part_add(&r->transfer, piece, a->tree.slot, part, a->at, a->bytes);
}

static nd_status send(nd_part_reduction *r, const act *a, progress *p)
{
    const nd_comm_piece *piece = &r->pieces[a->piece];
    const nd_comm_piece values = {.slots = piece->slots};
    const void *data = NULL;
    size_t bytes = a->bytes;
    for (; p->left + ND_WIRE_DEPTH <= p->sends; p->left++)
        ND_TRY(nd_wire_finish_send(r->wire, p->left));
    if (a->tree.finished)
        piece = &values;
    if (piece->format == ND_GRADIENT_WIRE_FP32 && !r->comm->device)
        data = nd_shortened_part_make(&r->shortening, r->comm, a->tree.peer,
                                      (const char *)piece->slots[a->tree.slot] + a->at,
                                      nd_wire_room(r->wire, p->sends), &bytes);
    else
        ND_TRY(nd_gradient_part_make(&r->transfer, piece, a->tree.slot,
                                     nd_wire_room(r->wire, p->sends), a->at, a->bytes));
    return nd_wire_start_send(r->wire, p->sends++, data, (int)bytes, a->tree.peer);
}

static nd_status add(nd_part_reduction *r, const act *a)
{
    const nd_comm_piece *piece = &r->pieces[a->piece];
    const int64_t first = nd_gradient_wire_values(piece->format, a->at);
    return nd_tree_add(r->comm, piece->slots[a->tree.slot] + first,
                       piece->slots[a->tree.other] + first,
                       nd_gradient_wire_values(piece->format, a->bytes));
}

/* Sends of a level need nothing that is received in it. So they do not wait for receives before them, whose
 * senders would wait for these in turn, one message at a time. */
static nd_status send_ahead(nd_part_reduction *r, int64_t at, progress *p)
{
    const int level = r->order[at].tree.level;
    for (; p->next_send < r->count && p->sends < p->passed + ND_WIRE_DEPTH &&
           r->order[p->next_send].tree.level == level;
         p->next_send++)
        if (r->order[p->next_send].tree.kind == ND_TREE_SEND)
            ND_TRY(send(r, &r->order[p->next_send], p));
    p->passed += r->order[at].tree.kind == ND_TREE_SEND;
    return ND_OK;
}

static nd_status work_off(nd_part_reduction *r)
{
    progress p = {0};
    r->subject = NULL;
    for (int64_t i = 0; i < r->count; i++) {
        const act *a = &r->order[i];
        /* A delivered sum replaces a slot that was sent at a lower level. */
        if (i > 0 && a->tree.level != r->order[i - 1].tree.level)
            ND_TRY(finish_sends(r, &p));
        ND_TRY(open_receives(r, &p));
        ND_TRY(send_ahead(r, i, &p));
        tell_subject(r, &r->pieces[a->piece]);
        if (a->tree.kind == ND_TREE_ADD)
            ND_TRY(add(r, a));
        else if (a->tree.kind != ND_TREE_SEND)
            ND_TRY(receive(r, a, &p));
    }
    return finish_sends(r, &p);
}

nd_status nd_part_reduction_run(nd_part_reduction *r, nd_comm_split split, nd_comm_piece *pieces,
                                int64_t count)
{
    ND_TRY(take_pieces(r, pieces, count));
    ND_TRY(walk(r, split, count));
    sort_by_level(r);
    const double begun = nd_wire_now(r->wire);
    nd_wire_take_shorter(r->wire, true);
    const nd_status status = work_off(r);
    nd_wire_take_shorter(r->wire, false);
    nd_shortening_measure(&r->shortening, nd_wire_now(r->wire) - begun);
    if (status != ND_OK)
        nd_wire_give_up(r->wire);
    return status;
}
