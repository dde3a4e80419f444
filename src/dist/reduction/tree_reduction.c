#include "dist/reduction/tree_reduction.h"

#include "core/base/sum_tree.h"

/* Where the sum of a node is. */
typedef struct place {
    int rank;
    int slot;
} place;

typedef struct walk {
    int rank, meets; /* the owner, where sums are met by it; else -1 */
    int64_t part;    /* leaves of a rank */
    int64_t host;    /* nd_tree.host; 1: none */
    bool whole;      /* which are one block each */
    int64_t turn;
    nd_tree_visit visit;
    void *context;
} walk;

static int log_of(int64_t leaves)
{
    int level = 0;
    while ((int64_t)1 << level < leaves)
        level++;
    return level;
}

/* Of a node over so many leaves, in a tree of hosts of `host` leaves. */
static int level_of(int64_t leaves, int64_t host)
{
    return leaves > host ? log_of(host) + log_of((leaves + host - 1) / host) : log_of(leaves);
}

/* Where node (a, b) splits. */
static int64_t middle_of(const walk *w, int64_t a, int64_t b)
{
    const int64_t hosts = (b - a) / w->host;
    return a + (b - a > w->host ? w->host * nd_sum_tree_left(hosts) : nd_sum_tree_left(b - a));
}

/* Whether the rank of the right child takes the sum of node (a, b). */
static bool goes_right(const walk *w, int left, int right, int64_t a, int64_t b)
{
    if (left == w->meets || right == w->meets)
        return right == w->meets;
    return w->whole && (w->turn >> (level_of((b - a) / w->part, w->host) - 1) & 1);
}

/* Who holds the sum of leaves a..b-1, where each rank's leaves are one block. */
static int holder(const walk *w, int64_t a, int64_t b)
{
    while (b - a > w->part) {
        const int64_t middle = middle_of(w, a, b), met = w->meets * w->part;
        const bool right = met >= a && met < b
                               ? met >= middle
                               : w->turn >> (level_of((b - a) / w->part, w->host) - 1) & 1;
        *(right ? &a : &b) = middle;
    }
    return (int)(a / w->part);
}

static nd_status meet(const walk *w, int64_t a, int64_t b, place left, place right, place *sum)
{
    nd_tree_act act = {.level = level_of(b - a, w->host)};
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

/* The leaves a..b-1. A rank walks what it may be concerned with, and keeps the books of
 * the rest. */
static nd_status walk_node(const walk *w, int64_t a, int64_t b, place *sum)
{
    const int first_rank = (int)(a / w->part), last_rank = (int)((b - 1) / w->part);
    if (first_rank == last_rank && nd_sum_tree_is_block(a, b)) {
        const int64_t first = first_rank * w->part;
        *sum = (place){first_rank, nd_sum_tree_slot(first, first + w->part, a)};
        return ND_CHECK(sum->slot >= 0, ND_EINTERNAL,
                        "leaves %lld to %lld are not one block of rank %d", (long long)a,
                        (long long)b - 1, first_rank);
    }
    if (w->whole && (w->rank < first_rank || w->rank > last_rank)) {
        *sum = (place){holder(w, a, b), 0};
        return ND_OK;
    }
    const int64_t middle = middle_of(w, a, b);
    place left, right;
    ND_TRY(walk_node(w, a, middle, &left));
    ND_TRY(walk_node(w, middle, b, &right));
    return meet(w, a, b, left, right, sum);
}

static bool is_power_of_two(int64_t x)
{
    return (x & (x - 1)) == 0;
}

enum { MEET_RANKS_MAX = 8 };

static bool whole(const nd_tree *tree)
{
    return is_power_of_two(tree->split.leaves / tree->ranks);
}

/* Whether sums are delivered. */
static bool delivers(const nd_tree *tree)
{
    return tree->ranks > MEET_RANKS_MAX && tree->format == ND_GRADIENT_WIRE_FP32 && whole(tree);
}

/* The rank that meets sums, which is an owner where nothing is rounded; -1: none. */
static int meets(const nd_tree *tree)
{
    const int copies = tree->ranks / tree->group;
    const int64_t turn = whole(tree) ? tree->turn : 0;
    if (tree->format != ND_GRADIENT_WIRE_FP32)
        return tree->taker;
    return delivers(tree)
               ? -1
               : (int)((turn + tree->taker / tree->group) % copies) * tree->group + tree->owner;
}

static int at_least_one(int host)
{
    return host > 0 ? host : 1;
}

static walk walk_of(int rank, const nd_tree *tree)
{
    return (walk){.rank = rank,
                  .meets = meets(tree),
                  .part = tree->split.leaves / tree->ranks,
                  .host = at_least_one(tree->host),
                  .whole = whole(tree),
                  .turn = tree->turn};
}

int nd_tree_host(nd_comm_split split, int host_ranks)
{
    return split.any_order ? host_ranks : 0;
}

/* A node over 2^level leaves is within a host if so many divide the host's leaves. */
int nd_tree_levels_within(nd_comm_split split, int ranks, int host_ranks)
{
    int64_t leaves = split.leaves / ranks * host_ranks;
    int within = 0;
    if (split.any_order || host_ranks == 0)
        return log_of(host_ranks);
    for (; leaves % 2 == 0; leaves /= 2)
        within++;
    return within;
}

nd_tree nd_tree_of(const nd_comm *comm, nd_comm_split split, const nd_comm_piece *piece,
                   int64_t turn)
{
    return (nd_tree){.ranks = comm->size,
                     .group = nd_comm_group(comm),
                     .host = nd_tree_host(split, comm->host_ranks),
                     .split = split,
                     .owner = piece->owner,
                     .taker = piece->taker,
                     .format = piece->format,
                     .turn = turn};
}

int nd_tree_top(const nd_tree *tree)
{
    return level_of(tree->split.leaves, at_least_one(tree->host));
}

int nd_tree_turn_bits(const nd_tree *tree, int level)
{
    const int leaves = log_of(tree->split.leaves / tree->ranks);
    return delivers(tree) && is_power_of_two(tree->ranks) && level <= nd_tree_top(tree)
               ? level - leaves
               : 0;
}

typedef struct passing {
    int group, owner;
    int only; /* the group whose messages are wanted; -1: of all */
    nd_tree_message visit;
    void *context;
} passing;

/* In groups a..b-1, of which `has` has the sum. */
static void pass_on(const passing *p, int a, int b, int has, int level)
{
    if (b - a == 1 || (p->only >= 0 && (p->only < a || p->only >= b)))
        return;
    const int middle = a + (int)nd_sum_tree_left(b - a);
    const int across = has < middle ? middle + has - a : a + has - middle;
    const int takes = across < b ? across : b - 1;
    p->visit(p->context, level, has * p->group + p->owner, takes * p->group + p->owner);
    pass_on(p, a, middle, has < middle ? has : takes, level + 1);
    pass_on(p, middle, b, has < middle ? takes : has, level + 1);
}

/* Of the sum that rank `holds`; those that concern the group of rank `only`, or all. */
static void pass_to_owners(const nd_tree *tree, int holds, int only, nd_tree_message visit,
                           void *context)
{
    const int group = tree->group, near = holds / group, level = nd_tree_top(tree) + 1;
    const passing p = {group, tree->owner, only >= 0 ? only / group : -1, visit, context};
    if (holds % group != tree->owner)
        visit(context, level, holds, near * group + tree->owner);
    pass_on(&p, 0, tree->ranks / group, near, level + 1);
}

typedef struct finished {
    int rank, slot; /* of this rank, which holds the sum there when it sends */
    nd_tree_visit visit;
    void *context;
    nd_status status;
} finished;

static void act_on(void *context, int level, int from, int to)
{
    finished *f = context;
    if (f->status != ND_OK || (f->rank != from && f->rank != to))
        return;
    const nd_tree_act act = {.kind = f->rank == to ? ND_TREE_TAKE : ND_TREE_SEND,
                             .level = level,
                             .slot = f->slot,
                             .peer = f->rank == to ? from : to,
                             .finished = true};
    f->status = f->visit(f->context, &act);
}

nd_status nd_tree_walk(int rank, const nd_tree *tree, nd_tree_visit visit, void *context, int *slot)
{
    walk w = walk_of(rank, tree);
    place sum;
    w.visit = visit;
    w.context = context;
    ND_TRY(walk_node(&w, 0, tree->split.leaves, &sum));
    finished f = {rank, rank == sum.rank ? sum.slot : 0, visit, context, ND_OK};
    pass_to_owners(tree, sum.rank, rank, act_on, &f);
    *slot = rank % tree->group == tree->owner ? f.slot : -1;
    return f.status;
}

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

typedef struct listing {
    walk walk;
    nd_tree_message visit;
    void *context;
} listing;

/* Returns who holds the sum of leaves a..b-1. */
static int list_node(const listing *l, int64_t a, int64_t b)
{
    const walk *w = &l->walk;
    const int first = (int)(a / w->part), last = (int)((b - 1) / w->part);
    if (first == last && nd_sum_tree_is_block(a, b))
        return first;
    const int64_t middle = middle_of(w, a, b);
    const int left = list_node(l, a, middle), right = list_node(l, middle, b);
    if (left == right)
        return left;
    const bool to_right = goes_right(w, left, right, a, b);
    l->visit(l->context, level_of(b - a, w->host), to_right ? left : right,
             to_right ? right : left);
    return to_right ? right : left;
}

void nd_tree_messages(const nd_tree *tree, nd_tree_message visit, void *context)
{
    const listing l = {walk_of(0, tree), visit, context};
    const int holds = list_node(&l, 0, tree->split.leaves);
    pass_to_owners(tree, holds, -1, visit, context);
}

typedef struct tally {
    int top;
    double sums;
} tally;

static void count_sum(void *context, int level, int from, int to)
{
    tally *t = context;
    (void)from, (void)to;
    t->sums += level <= t->top;
}

double nd_tree_sums(const nd_tree *tree)
{
    tally t = {.top = nd_tree_top(tree)};
    nd_tree_messages(tree, count_sum, &t);
    return t.sums;
}

double nd_tree_copies(const nd_tree *tree)
{
    const int copies = tree->ranks / tree->group;
    double delivered = (double)(tree->group - 1) / tree->group;
    if (!delivers(tree))
        delivered = meets(tree) % tree->group != tree->owner;
    return copies - 1 + delivered;
}
