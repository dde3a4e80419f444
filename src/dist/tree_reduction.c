#include "dist/tree_reduction.h"

#include "core/base/sum_tree.h"

/* Where the sum of a node is. */
typedef struct place {
    int rank;
    int slot;
} place;

typedef struct reduction {
    nd_comm *comm;
    const nd_tree_transfer *transfer;
    int64_t part; /* leaves of a rank */
    const nd_comm_piece *piece;
} reduction;

static nd_status add(const reduction *r, float *restrict into, const float *restrict from,
                     int64_t count)
{
    nd_backend *device = r->comm->device;
    if (r->transfer->add)
        return r->transfer->add(r->transfer->context, into, from, count);
    if (device)
        return device->ops.axpby(device, nd_view_of(into, ND_F32, 1, count), 1.0f,
                                 nd_cview_of(from, ND_F32, 1, count), 1.0f);
    for (int64_t i = 0; i < count; i++)
        into[i] += from[i];
    return ND_OK;
}

static nd_status meet(const reduction *r, place left, place right, place *sum)
{
    const nd_comm_piece *p = r->piece;
    const int rank = r->comm->rank;
    if (left.rank == right.rank) {
        *sum = left;
        if (rank == left.rank)
            return add(r, p->slots[left.slot], p->slots[right.slot], p->count);
        return ND_OK;
    }
    const bool to_right = right.rank == p->owner;
    const place from = to_right ? left : right;
    *sum = to_right ? right : left;
    if (rank == sum->rank)
        return r->transfer->receive_and_add(r->transfer->context, p, sum->slot, from.rank);
    if (rank == from.rank)
        return r->transfer->send(r->transfer->context, p, from.slot, sum->rank);
    return ND_OK;
}

/* Sums the leaves a..b-1. All ranks walk the same tree; those not concerned only keep the books. */
static nd_status reduce_node(const reduction *r, int64_t a, int64_t b, place *sum)
{
    const int first_rank = (int)(a / r->part), last_rank = (int)((b - 1) / r->part);
    if (first_rank == last_rank && nd_sum_tree_is_block(a, b)) {
        const int64_t first = first_rank * r->part;
        *sum = (place){first_rank, nd_sum_tree_slot(first, first + r->part, a)};
        return sum->slot >= 0 ? ND_OK
                              : ND_FAIL(ND_EINTERNAL,
                                        "leaves %lld to %lld are no whole block of rank "
                                        "%d",
                                        (long long)a, (long long)b - 1, first_rank);
    }
    const int64_t middle = a + nd_sum_tree_left(b - a);
    place left, right;
    ND_TRY(reduce_node(r, a, middle, &left));
    ND_TRY(reduce_node(r, middle, b, &right));
    return meet(r, left, right, sum);
}

nd_status nd_tree_reduce(nd_comm *comm, const nd_tree_transfer *transfer, nd_comm_split split,
                         nd_comm_piece *piece)
{
    const reduction r = {comm, transfer, split.leaves / comm->size, piece};
    place sum;
    ND_TRY(reduce_node(&r, 0, split.leaves, &sum));
    piece->result = comm->rank == sum.rank ? piece->slots[sum.slot] : NULL;
    return ND_OK;
}

/* *rank: where the sum of leaves a..b-1 ends up. */
static int64_t node_sends(int64_t part, int owner, int64_t a, int64_t b, int *rank)
{
    const int first = (int)(a / part), last = (int)((b - 1) / part);
    if (first == last && nd_sum_tree_is_block(a, b)) {
        *rank = first;
        return 0;
    }
    const int64_t middle = a + nd_sum_tree_left(b - a);
    int left, right;
    const int64_t below =
        node_sends(part, owner, a, middle, &left) + node_sends(part, owner, middle, b, &right);
    *rank = right == owner ? right : left;
    return below + (left != right);
}

int64_t nd_tree_sends(int ranks, nd_comm_split split, int owner)
{
    int rank;
    return node_sends(split.leaves / ranks, owner, 0, split.leaves, &rank);
}
