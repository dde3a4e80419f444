#include "emulated_nccl.h"

#include "emulated_operations.h"

#include "dist/simulation/fibers.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGES_MAX = 2048 };

typedef struct queue {
    struct rank_state *rank;
    nd_nccl_queue number;
    nd_emulated_operation *list; /* [capacity]; those from `done` to `given` are left */
    int64_t capacity, given, done;
    nd_emulated_message open[MESSAGES_MAX]; /* between group_start and group_end */
    int open_count;
    bool posted,
        works; /* a group waits for partners; an operation other than ND_EMULATED_AFTER is begun */
    int left;  /* of the group's messages */
    bool blocked; /* its fiber */
} queue;

typedef struct rank_state {
    nd_emulated_nccl *nccl;
    int rank;
    nd_nccl_queue group; /* of the group that is open, if one is */
    bool open, closed;   /* nothing more will be enqueued */
    bool blocked;        /* its fiber */
    queue *queues;       /* [ND_NCCL_QUEUES] */
    int groups_done;
    nd_emulated_counts counts;
} rank_state;

struct nd_emulated_nccl {
    nd_emulated_machine machine;
    nd_fibers *fibers;
    nd_emulated_rank main;
    void *context;
    rank_state *ranks;
    uint64_t draws;
    bool stuck;     /* a deadlock, which has resumed all fibers */
    nd_error error; /* the first */
};

/* Fibers: the ranks, then their queues. */
static int fiber_of(const queue *q)
{
    const nd_emulated_nccl *n = q->rank->nccl;
    return n->machine.ranks + q->rank->rank * ND_NCCL_QUEUES + (int)q->number;
}

/* False: a deadlock. */
static bool block(nd_emulated_nccl *n, bool *blocked)
{
    *blocked = true;
    const bool goes_on = nd_fibers_block(n->fibers);
    *blocked = false;
    n->stuck |= !goes_on;
    return goes_on;
}

static void wake(nd_emulated_nccl *n, int fiber, bool *blocked)
{
    if (*blocked && !n->stuck)
        nd_fibers_wake(n->fibers, fiber, nd_fibers_now(n->fibers));
    *blocked = false;
}

static void wake_queue(queue *q)
{
    wake(q->rank->nccl, fiber_of(q), &q->blocked);
}

static nd_status fail(nd_emulated_nccl *n, const char *what, int rank, int peer)
{
    if (n->error.status != ND_OK)
        return ND_FAIL(ND_EPEER, "rank %d: another rank has failed", rank);
    ND_FAIL(ND_EPEER, "rank %d, peer %d: %s", rank, peer, what);
    n->error = *nd_error_get();
    return ND_EPEER;
}

static nd_emulated_operation *at_hand(queue *q)
{
    return &q->list[q->done];
}

/* The next message of the group from `at` on that sends to, or receives from, `peer`; count: none.
 */
static int next_with(const nd_emulated_operation *o, int at, int peer, bool receives)
{
    while (at < o->count &&
           (o->of.messages[at].peer != peer || o->of.messages[at].receives != receives))
        at++;
    return at;
}

/* All that a's rank sends to b's, if b's group at hand has any of it. */
static nd_status match(queue *a, queue *b)
{
    nd_emulated_nccl *n = a->rank->nccl;
    const int from = a->rank->rank, to = b->rank->rank;
    if (!a->posted || !b->posted)
        return ND_OK;
    nd_emulated_operation *out = at_hand(a), *in = at_hand(b);
    int i = next_with(out, 0, to, false), j = next_with(in, 0, from, true);
    if (i == out->count || j == in->count)
        return ND_OK;
    if (out->of.messages[i].done || in->of.messages[j].done) /* one of them is a group ahead */
        return ND_OK;
    while (i < out->count && j < in->count) {
        nd_emulated_message *sent = &out->of.messages[i], *taken = &in->of.messages[j];
        if (sent->bytes != taken->bytes)
            return fail(n, "a receive has other bytes than its send", to, from);
        memcpy(taken->data, sent->data, sent->bytes);
        sent->done = taken->done = true;
        a->left--;
        b->left--;
        i = next_with(out, i + 1, to, false);
        j = next_with(in, j + 1, from, true);
    }
    if (i < out->count || j < in->count)
        return fail(n, "a group has other receives than its partner has sends", to, from);
    return ND_OK;
}

static nd_status check_memory(queue *q)
{
    rank_state *r = q->rank;
    nd_emulated_operation *o = at_hand(q);
    if (o->kind == ND_EMULATED_GROUP && nd_emulated_clash(o, o))
        return fail(r->nccl, "what a group receives overlaps its other memory", r->rank,
                    o->of.messages[0].peer);
    for (int other = 0; other < ND_NCCL_QUEUES; other++)
        if (r->queues[other].works && nd_emulated_clash(o, at_hand(&r->queues[other])))
            return fail(r->nccl, "two queues use the same memory at once", r->rank, -1);
    return ND_OK;
}

static nd_status enqueue(rank_state *r, nd_nccl_queue number, nd_emulated_operation o)
{
    queue *q = &r->queues[number];
    if ((number == ND_NCCL_HOST || number == ND_NCCL_HOST_ADDS) && r->nccl->machine.local == 0)
        return fail(r->nccl, "no communicator of a host", r->rank, -1);
    if (q->given == q->capacity) {
        const int64_t capacity = q->capacity > 0 ? 2 * q->capacity : 64;
        nd_emulated_operation *list = realloc(q->list, (size_t)capacity * sizeof *list);
        ND_FAIL_IF(!list, ND_ENOMEM, "no memory for %lld operations", (long long)capacity);
        q->list = list;
        q->capacity = capacity;
    }
    if (o.kind != ND_EMULATED_AFTER)
        ND_TRY(nd_emulated_ranges(&o));
    q->list[q->given++] = o;
    wake_queue(q);
    return ND_OK;
}

static void *copy(const void *what, size_t bytes)
{
    void *made = malloc(bytes + 1);
    if (made)
        memcpy(made, what, bytes);
    return made;
}

static nd_status group_start(void *context, nd_nccl_queue number)
{
    rank_state *r = context;
    if (r->open)
        return fail(r->nccl, "a group in a group", r->rank, -1);
    r->open = true;
    r->group = number;
    r->queues[number].open_count = 0;
    return ND_OK;
}

static nd_status post(rank_state *r, nd_nccl_queue number, nd_emulated_message m)
{
    const nd_emulated_machine *at = &r->nccl->machine;
    queue *q = &r->queues[number];
    const bool near = at->local > 0 && m.peer / at->local == r->rank / at->local;
    if (!r->open || r->group != number || m.peer < 0 || m.peer >= at->ranks || m.peer == r->rank ||
        m.bytes == 0 || (number != ND_NCCL_ALL && !near))
        return fail(r->nccl, "no message of a group", r->rank, m.peer);
    if (q->open_count == MESSAGES_MAX)
        return fail(r->nccl, "too many messages in a group", r->rank, m.peer);
    q->open[q->open_count++] = m;
    return ND_OK;
}

static nd_status send(void *context, nd_nccl_queue number, const void *data, size_t bytes, int to)
{
    return post(context, number,
                (nd_emulated_message){.peer = to, .data = (void *)(uintptr_t)data, .bytes = bytes});
}

static nd_status receive(void *context, nd_nccl_queue number, void *data, size_t bytes, int from)
{
    return post(
        context, number,
        (nd_emulated_message){.receives = true, .peer = from, .data = data, .bytes = bytes});
}

static void count_group(rank_state *r, const queue *q)
{
    int receives = 0;
    for (int i = 0; i < q->open_count; i++)
        receives += q->open[i].receives;
    r->counts.groups++;
    r->counts.within += q->number == ND_NCCL_HOST;
    r->counts.both_ways += receives > 0 && receives < q->open_count;
    r->counts.messages += q->open_count;
    r->counts.largest = q->open_count > r->counts.largest ? q->open_count : r->counts.largest;
}

static nd_status group_end(void *context, nd_nccl_queue number)
{
    rank_state *r = context;
    queue *q = &r->queues[number];
    if (!r->open || r->group != number)
        return fail(r->nccl, "the end of no group", r->rank, -1);
    r->open = false;
    if (q->open_count == 0)
        return ND_OK;
    nd_emulated_operation o = {
        .kind = ND_EMULATED_GROUP, .count = q->open_count, .number = r->counts.groups};
    o.of.messages = copy(q->open, (size_t)q->open_count * sizeof *q->open);
    ND_FAIL_IF(!o.of.messages, ND_ENOMEM, "no memory for a group");
    count_group(r, q);
    return enqueue(r, number, o);
}

static nd_status launch(rank_state *r, nd_nccl_queue number, nd_emulated_operation o,
                        const nd_gradient_part *parts)
{
    if (r->open || o.count > ND_GRADIENT_PARTS)
        return fail(r->nccl, "a launch in a group, or of too much", r->rank, -1);
    o.of.parts = copy(parts, (size_t)o.count * sizeof *parts);
    ND_FAIL_IF(!o.of.parts, ND_ENOMEM, "no memory for a launch");
    return enqueue(r, number, o);
}

static nd_status encode(void *context, nd_nccl_queue number, const nd_gradient_part *parts,
                        int count)
{
    rank_state *r = context;
    r->counts.encodes++;
    return launch(r, number, (nd_emulated_operation){.kind = ND_EMULATED_ENCODE, .count = count},
                  parts);
}

static nd_status add(void *context, nd_nccl_queue number, const nd_gradient_part *parts, int count)
{
    rank_state *r = context;
    r->counts.adds++;
    return launch(r, number, (nd_emulated_operation){.kind = ND_EMULATED_ADD, .count = count},
                  parts);
}

static nd_status order(void *context, nd_nccl_queue first, nd_nccl_queue second)
{
    rank_state *r = context;
    nd_emulated_operation o = {.kind = ND_EMULATED_AFTER};
    o.of.first.number = first;
    o.of.first.done = r->queues[first].given;
    return enqueue(r, second, o);
}

nd_nccl_link nd_emulated_nccl_link(nd_emulated_nccl *n, int rank)
{
    return (nd_nccl_link){
        n->machine.local > 0, group_start, group_end, send, receive, encode, add, order,
        &n->ranks[rank]};
}

/* Up to a microsecond, now and then a hundred. */
static double delay(nd_emulated_nccl *n)
{
    uint64_t x = n->machine.seed * 0x9e3779b97f4a7c15u + ++n->draws * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 29) * 0x94d049bb133111ebu;
    x ^= x >> 32;
    return (double)(x % 1000) * (x / 1000 % 16 == 0 ? 1e-7 : 1e-9);
}

static nd_status exchange(queue *q)
{
    rank_state *r = q->rank;
    const nd_emulated_operation *o = at_hand(q);
    q->left = o->count;
    q->posted = true;
    for (int i = 0; i < o->count; i++) {
        const nd_emulated_message *m = &o->of.messages[i];
        queue *peer = &r->nccl->ranks[m->peer].queues[q->number];
        ND_TRY(m->receives ? match(peer, q) : match(q, peer));
        if (peer->posted && peer->left == 0)
            wake_queue(peer);
    }
    while (q->left > 0 && r->nccl->error.status == ND_OK)
        if (!block(r->nccl, &q->blocked))
            return fail(r->nccl, "waits for a message that is in no group", r->rank,
                        o->of.messages[0].peer);
    q->posted = false;
    return ND_OK;
}

static nd_status wait_for(queue *q)
{
    const nd_emulated_operation *o = at_hand(q);
    const int64_t done = o->of.first.done;
    const queue *first = &q->rank->queues[o->of.first.number];
    while (first->done < done && q->rank->nccl->error.status == ND_OK)
        if (!block(q->rank->nccl, &q->blocked))
            return fail(q->rank->nccl, "waits for another queue for ever", q->rank->rank, -1);
    return ND_OK;
}

static nd_status wait_for_turn(queue *q)
{
    rank_state *r = q->rank;
    const nd_emulated_operation *o = at_hand(q);
    const bool waits = r->nccl->machine.one_by_one && o->kind == ND_EMULATED_GROUP;
    while (waits && r->groups_done < o->number && r->nccl->error.status == ND_OK)
        if (!block(r->nccl, &q->blocked))
            return fail(r->nccl, "waits for an earlier group for ever", r->rank, -1);
    return ND_OK;
}

static nd_status carry_out(queue *q)
{
    rank_state *r = q->rank;
    nd_fibers *fibers = r->nccl->fibers;
    if (at_hand(q)->kind == ND_EMULATED_AFTER)
        return wait_for(q);
    ND_TRY(wait_for_turn(q));
    nd_fibers_sleep(fibers, nd_fibers_now(fibers) + delay(r->nccl));
    ND_TRY(check_memory(q));
    for (int other = 0; other < ND_NCCL_QUEUES; other++)
        r->counts.beside += r->queues[other].works;
    q->works = true;
    nd_fibers_sleep(fibers, nd_fibers_now(fibers) + delay(r->nccl));
    if (at_hand(q)->kind == ND_EMULATED_GROUP)
        ND_TRY(exchange(q));
    else
        nd_emulated_compute(at_hand(q));
    return ND_OK;
}

static void wake_rank(rank_state *r)
{
    wake(r->nccl, r->rank, &r->blocked);
    for (int i = 0; i < ND_NCCL_QUEUES; i++)
        wake_queue(&r->queues[i]);
}

static void work_off(queue *q)
{
    nd_emulated_nccl *n = q->rank->nccl;
    nd_status status = ND_OK;
    while (status == ND_OK && n->error.status == ND_OK) {
        if (q->done == q->given) {
            if (q->rank->closed || !block(n, &q->blocked))
                return;
            continue;
        }
        status = carry_out(q);
        q->rank->groups_done += at_hand(q)->kind == ND_EMULATED_GROUP;
        q->works = false;
        q->done++;
        wake_rank(q->rank);
    }
    if (status != ND_OK && n->error.status == ND_OK)
        n->error = *nd_error_get();
    for (int r = 0; r < n->machine.ranks; r++)
        wake_rank(&n->ranks[r]);
}

/* In a deadlock it is the queue that fails. */
nd_status nd_emulated_nccl_wait(const nd_nccl_link *link)
{
    rank_state *r = link->context;
    for (int i = 0; i < ND_NCCL_QUEUES; i++)
        while (r->queues[i].done < r->queues[i].given && r->nccl->error.status == ND_OK)
            (void)block(r->nccl, &r->blocked);
    return r->nccl->error.status == ND_OK ? ND_OK : fail(r->nccl, "", r->rank, -1);
}

static void fiber_main(void *context, int fiber)
{
    nd_emulated_nccl *n = context;
    const int ranks = n->machine.ranks;
    if (fiber < ranks) {
        rank_state *r = &n->ranks[fiber];
        if (n->main(n, fiber, n->context) != ND_OK && n->error.status == ND_OK)
            n->error = *nd_error_get();
        r->closed = true;
        wake_rank(r);
    } else {
        const int of = fiber - ranks;
        work_off(&n->ranks[of / ND_NCCL_QUEUES].queues[of % ND_NCCL_QUEUES]);
    }
    nd_error_clear();
}

static nd_status prepare(nd_emulated_nccl *n)
{
    const int ranks = n->machine.ranks;
    n->ranks = calloc((size_t)ranks, sizeof *n->ranks);
    ND_FAIL_IF(!n->ranks, ND_ENOMEM, "no memory for %d ranks", ranks);
    for (int r = 0; r < ranks; r++) {
        n->ranks[r] = (rank_state){.nccl = n, .rank = r};
        n->ranks[r].queues = calloc(ND_NCCL_QUEUES, sizeof(queue));
        ND_FAIL_IF(!n->ranks[r].queues, ND_ENOMEM, "no memory for %d ranks", ranks);
        for (int i = 0; i < ND_NCCL_QUEUES; i++) {
            n->ranks[r].queues[i].rank = &n->ranks[r];
            n->ranks[r].queues[i].number = (nd_nccl_queue)i;
        }
    }
    return nd_fibers_create(ranks * (1 + ND_NCCL_QUEUES), fiber_main, n, &n->fibers);
}

static void free_rank(rank_state *r)
{
    for (int i = 0; r->queues && i < ND_NCCL_QUEUES; i++) {
        queue *q = &r->queues[i];
        for (int64_t k = 0; k < q->given; k++)
            nd_emulated_operation_free(&q->list[k]);
        free(q->list);
    }
    free(r->queues);
}

nd_status nd_emulated_nccl_run(nd_emulated_machine machine, nd_emulated_rank main, void *context,
                               nd_emulated_counts *counts)
{
    nd_emulated_nccl n = {.machine = machine, .main = main, .context = context};
    nd_status status = prepare(&n);
    if (status == ND_OK) {
        nd_fibers_run(n.fibers);
        status = n.error.status;
    }
    for (int r = 0; n.ranks && r < machine.ranks; r++) {
        if (counts)
            counts[r] = n.ranks[r].counts;
        free_rank(&n.ranks[r]);
    }
    free(n.ranks);
    nd_fibers_destroy(n.fibers);
    if (n.error.status != ND_OK)
        nd_error_set(&n.error);
    return status;
}
