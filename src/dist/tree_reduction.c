#include "dist/tree_reduction.h"

#include "core/base/sum_tree.h"

/* Where the sum of a node is. */
typedef struct place {
    int rank;
    int slot;
} place;

typedef struct walk {
    int rank, owner;
    int64_t part; /* leaves of a rank */
    bool whole;   /* which are one block each */
    int64_t turn;
    nd_tree_visit visit;
    void *context;
} walk;

static int level_of(int64_t leaves)
{
    int level = 0;
    while ((int64_t)1 << level < leaves)
        level++;
    return level;
}

/* Whether the rank of the right child takes the sum of node (a, b). */
static bool goes_right(const walk *w, int left, int right, int64_t a, int64_t b)
{
    if (left == w->owner || right == w->owner)
        return right == w->owner;
    return w->whole && (w->turn >> (level_of((b - a) / w->part) - 1) & 1);
}

/* Who holds the sum of leaves a..b-1, where each rank's leaves are one block. */
static int holder(const walk *w, int64_t a, int64_t b)
{
    while (b - a > w->part) {
        const int64_t middle = a + nd_sum_tree_left(b - a), owned = w->owner * w->part;
        const bool right = owned >= a && owned < b
                               ? owned >= middle
                               : w->turn >> (level_of((b - a) / w->part) - 1) & 1;
        *(right ? &a : &b) = middle;
    }
    return (int)(a / w->part);
}

static nd_status meet(const walk *w, int64_t a, int64_t b, place left, place right, place *sum)
{
    nd_tree_act act = {.level = level_of(b - a)};
    if (left.rank == right.rank) {
        *sum = left;
        act.kind = ND_TREE_ADD;
        act.slot = left.slot;
        act.other = right.slot;
        return w->rank == left.rank ? w->visit(w->context, &act) : ND_OK;
    }
    const bool to_right = goes_right(w, left.rank, right.rank, a, b);
    const place from = to_right ? left : right;
    *sum = to_right ? right : left;
    if (w->rank != sum->rank && w->rank != from.rank)
        return ND_OK;
    act.kind = w->rank == sum->rank ? ND_TREE_RECEIVE : ND_TREE_SEND;
    act.slot = w->rank == sum->rank ? sum->slot : from.slot;
    act.peer = w->rank == sum->rank ? from.rank : sum->rank;
    return w->visit(w->context, &act);
}

/* The leaves a..b-1. A rank walks what it may be concerned with, and keeps the books of the rest. */
static nd_status walk_node(const walk *w, int64_t a, int64_t b, place *sum)
{
    const int first_rank = (int)(a / w->part), last_rank = (int)((b - 1) / w->part);
    if (first_rank == last_rank && nd_sum_tree_is_block(a, b)) {
        const int64_t first = first_rank * w->part;
        *sum = (place){first_rank, nd_sum_tree_slot(first, first + w->part, a)};
        return sum->slot >= 0 ? ND_OK
                              : ND_FAIL(ND_EINTERNAL,
                                        "leaves %lld to %lld are no whole block of rank "
                                        "%d",
                                        (long long)a, (long long)b - 1, first_rank);
    }
    if (w->whole && (w->rank < first_rank || w->rank > last_rank)) {
        *sum = (place){holder(w, a, b), 0};
        return ND_OK;
    }
    const int64_t middle = a + nd_sum_tree_left(b - a);
    place left, right;
    ND_TRY(walk_node(w, a, middle, &left));
    ND_TRY(walk_node(w, middle, b, &right));
    return meet(w, a, b, left, right, sum);
}

static bool is_power_of_two(int64_t x)
{
    return (x & (x - 1)) == 0;
}

nd_status nd_tree_walk(int rank, int ranks, nd_comm_split split, int owner, int64_t turn,
                       nd_tree_visit visit, void *context, int *slot)
{
    const int64_t part = split.leaves / ranks;
    const walk w = {rank, owner, part, is_power_of_two(part), turn, visit, context};
    place sum;
    ND_TRY(walk_node(&w, 0, split.leaves, &sum));
    *slot = rank == sum.rank ? sum.slot : -1;
    return ND_OK;
}

/* -- whole slots at a time -------------------------------------------------------------------- */

typedef struct reduction {
    nd_comm *comm;
    const nd_tree_transfer *transfer;
    const nd_comm_piece *piece;
} reduction;

nd_status nd_tree_add(nd_comm *comm, float *restrict into, const float *restrict from,
                      int64_t count)
{
    nd_backend *device = comm->device;
    if (device)
        return device->ops.axpby(device, nd_view_of(into, ND_F32, 1, count), 1.0f,
                                 nd_cview_of(from, ND_F32, 1, count), 1.0f);
    for (int64_t i = 0; i < count; i++)
        into[i] += from[i];
    return ND_OK;
}

static nd_status act_at_once(void *context, const nd_tree_act *act)
{
    const reduction *r = context;
    const nd_tree_transfer *t = r->transfer;
    const nd_comm_piece *p = r->piece;
    switch (act->kind) {
    case ND_TREE_SEND:
        return t->send(t->context, p, act->slot, act->peer);
    case ND_TREE_RECEIVE:
        return t->receive_and_add(t->context, p, act->slot, act->peer);
    case ND_TREE_ADD:
        break;
    }
    if (t->add)
        return t->add(t->context, p->slots[act->slot], p->slots[act->other], p->count);
    return nd_tree_add(r->comm, p->slots[act->slot], p->slots[act->other], p->count);
}

nd_status nd_tree_reduce(nd_comm *comm, const nd_tree_transfer *transfer, nd_comm_split split,
                         nd_comm_piece *piece)
{
    reduction r = {comm, transfer, piece};
    int slot;
    ND_TRY(nd_tree_walk(comm->rank, comm->size, split, piece->owner, 0, act_at_once, &r, &slot));
    piece->result = slot >= 0 ? piece->slots[slot] : NULL;
    return ND_OK;
}

/* *rank: where the sum of leaves a..b-1 ends up. */
static int64_t node_sends(const walk *w, int64_t a, int64_t b, int *rank)
{
    const int first = (int)(a / w->part), last = (int)((b - 1) / w->part);
    if (first == last && nd_sum_tree_is_block(a, b)) {
        *rank = first;
        return 0;
    }
    const int64_t middle = a + nd_sum_tree_left(b - a);
    int left, right;
    const int64_t below = node_sends(w, a, middle, &left) + node_sends(w, middle, b, &right);
    *rank = goes_right(w, left, right, a, b) ? right : left;
    return below + (left != right);
}

int64_t nd_tree_sends(int ranks, nd_comm_split split, int owner)
{
    const walk w = {.owner = owner, .part = split.leaves / ranks};
    int rank;
    return node_sends(&w, 0, split.leaves, &rank);
}
