#include "emulated_nccl.h"

#include "dist/fibers.h"
#include "dist/gradient_wire.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGES_MAX = 2048 };

typedef struct message {
    bool receives, done;
    int peer;
    char *data; /* of a send it is read alone */
    size_t bytes;
} message;

typedef struct rank_state {
    nd_emulated_nccl *nccl;
    int rank;
    bool open, posted; /* between group_start and group_end; in group_end */
    message *messages; /* [MESSAGES_MAX] of the group at hand */
    int count, left;
    nd_emulated_counts counts;
} rank_state;

struct nd_emulated_nccl {
    nd_fibers *fibers;
    nd_emulated_rank main;
    void *context;
    rank_state *ranks;
    int size;
    nd_error error; /* the first */
};

static nd_status fail(nd_emulated_nccl *n, const char *what, int rank, int peer)
{
    if (n->error.status != ND_OK)
        return ND_FAIL(ND_EPEER, "rank %d: another rank has failed", rank);
    ND_FAIL(ND_EPEER, "rank %d, peer %d: %s", rank, peer, what);
    n->error = *nd_error_get();
    return ND_EPEER;
}

/* -- matching --------------------------------------------------------------------------------- */

/* The next message of `r` from `at` on that sends to, or receives from, `peer`; r->count: none. */
static int next_with(const rank_state *r, int at, int peer, bool receives)
{
    while (at < r->count && (r->messages[at].peer != peer || r->messages[at].receives != receives))
        at++;
    return at;
}

/* All that rank a sends to rank b, if b's group at hand has any of it. */
static nd_status match(nd_emulated_nccl *n, rank_state *a, rank_state *b)
{
    int i = next_with(a, 0, b->rank, false), j = next_with(b, 0, a->rank, true);
    if (!a->posted || !b->posted || i == a->count || j == b->count)
        return ND_OK;
    if (a->messages[i].done || b->messages[j].done) /* one of them is a group ahead */
        return ND_OK;
    while (i < a->count && j < b->count) {
        message *out = &a->messages[i], *in = &b->messages[j];
        if (out->bytes != in->bytes)
            return fail(n, "a receive has other bytes than its send", b->rank, a->rank);
        memcpy(in->data, out->data, out->bytes);
        out->done = in->done = true;
        a->left--;
        b->left--;
        i = next_with(a, i + 1, b->rank, false);
        j = next_with(b, j + 1, a->rank, true);
    }
    if (i < a->count || j < b->count)
        return fail(n, "a group has other receives than its partner has sends", b->rank, a->rank);
    return ND_OK;
}

/* Another than the one that runs. */
static void wake_if_done(nd_emulated_nccl *n, rank_state *r)
{
    if (r->posted && r->left == 0) {
        r->posted = false;
        nd_fibers_wake(n->fibers, r->rank, 0.0);
    }
}

static bool overlaps(const message *a, const message *b)
{
    return a->data < b->data + b->bytes && b->data < a->data + a->bytes;
}

static nd_status check_memory(rank_state *r)
{
    for (int i = 0; i < r->count; i++)
        for (int j = 0; r->messages[i].receives && j < r->count; j++)
            if (i != j && overlaps(&r->messages[i], &r->messages[j]))
                return fail(r->nccl, "what a group receives overlaps its other memory", r->rank,
                            r->messages[i].peer);
    return ND_OK;
}

/* -- the link --------------------------------------------------------------------------------- */

static nd_status group_start(void *context)
{
    rank_state *r = context;
    if (r->open)
        return fail(r->nccl, "a group in a group", r->rank, -1);
    r->open = true;
    r->count = 0;
    return ND_OK;
}

static nd_status post(rank_state *r, bool receives, void *data, size_t bytes, int peer)
{
    if (!r->open || peer < 0 || peer >= r->nccl->size || peer == r->rank || bytes == 0)
        return fail(r->nccl, "no message of a group", r->rank, peer);
    if (r->count == MESSAGES_MAX)
        return fail(r->nccl, "too many messages in a group", r->rank, peer);
    r->messages[r->count++] =
        (message){.receives = receives, .peer = peer, .data = data, .bytes = bytes};
    return ND_OK;
}

static nd_status send(void *context, const void *data, size_t bytes, int to)
{
    return post(context, false, (void *)(uintptr_t)data, bytes, to);
}

static nd_status receive(void *context, void *data, size_t bytes, int from)
{
    return post(context, true, data, bytes, from);
}

static void count_group(rank_state *r)
{
    int receives = 0;
    for (int i = 0; i < r->count; i++)
        receives += r->messages[i].receives;
    r->counts.groups++;
    r->counts.both_ways += receives > 0 && receives < r->count;
    r->counts.messages += r->count;
    r->counts.largest = r->count > r->counts.largest ? r->count : r->counts.largest;
}

static nd_status exchange(rank_state *r)
{
    nd_emulated_nccl *n = r->nccl;
    for (int i = 0; i < r->count; i++) {
        rank_state *peer = &n->ranks[r->messages[i].peer];
        ND_TRY(r->messages[i].receives ? match(n, peer, r) : match(n, r, peer));
        wake_if_done(n, peer);
    }
    if (r->left > 0 && !nd_fibers_block(n->fibers))
        return fail(n, "waits for a message that is in no group", r->rank, r->messages[0].peer);
    return ND_OK;
}

static nd_status group_end(void *context)
{
    rank_state *r = context;
    if (!r->open)
        return fail(r->nccl, "the end of no group", r->rank, -1);
    r->open = false;
    r->left = r->count;
    if (r->count == 0)
        return ND_OK;
    count_group(r);
    ND_TRY(check_memory(r));
    r->posted = true;
    const nd_status status = exchange(r);
    r->posted = false;
    return status;
}

static nd_status encode(void *context, const nd_gradient_part *parts, int count)
{
    rank_state *r = context;
    if (r->open || count > ND_GRADIENT_PARTS)
        return fail(r->nccl, "a launch in a group, or of too much", r->rank, -1);
    /* The parts of a launch have no order. */
    for (int i = count - 1; i >= 0; i--)
        nd_gradient_wire_encode((nd_gradient_wire)parts[i].format, parts[i].wire, parts[i].values,
                                parts[i].residual, parts[i].count);
    r->counts.encodes++;
    return ND_OK;
}

static nd_status add(void *context, const nd_gradient_part *parts, int count)
{
    rank_state *r = context;
    if (r->open || count > ND_GRADIENT_PARTS)
        return fail(r->nccl, "a launch in a group, or of too much", r->rank, -1);
    for (int i = count - 1; i >= 0; i--)
        nd_gradient_wire_add((nd_gradient_wire)parts[i].format, parts[i].values, parts[i].wire,
                             parts[i].count);
    r->counts.adds++;
    return ND_OK;
}

nd_nccl_link nd_emulated_nccl_link(nd_emulated_nccl *n, int rank)
{
    return (nd_nccl_link){group_start, group_end, send, receive, encode, add, &n->ranks[rank]};
}

/* -- the run ---------------------------------------------------------------------------------- */

static void fiber_main(void *context, int fiber)
{
    nd_emulated_nccl *n = context;
    if (n->main(n, fiber, n->context) != ND_OK && n->error.status == ND_OK)
        n->error = *nd_error_get();
    nd_error_clear();
}

static nd_status prepare(nd_emulated_nccl *n)
{
    n->ranks = calloc((size_t)n->size, sizeof *n->ranks);
    ND_FAIL_IF(!n->ranks, ND_ENOMEM, "no memory for %d ranks", n->size);
    for (int r = 0; r < n->size; r++) {
        n->ranks[r] = (rank_state){.nccl = n, .rank = r};
        n->ranks[r].messages = calloc(MESSAGES_MAX, sizeof(message));
        ND_FAIL_IF(!n->ranks[r].messages, ND_ENOMEM, "no memory for %d ranks", n->size);
    }
    return nd_fibers_create(n->size, fiber_main, n, &n->fibers);
}

nd_status nd_emulated_nccl_run(int ranks, nd_emulated_rank main, void *context,
                               nd_emulated_counts *counts)
{
    nd_emulated_nccl n = {.main = main, .context = context, .size = ranks};
    nd_status status = prepare(&n);
    if (status == ND_OK) {
        nd_fibers_run(n.fibers);
        status = n.error.status;
    }
    for (int r = 0; counts && n.ranks && r < ranks; r++)
        counts[r] = n.ranks[r].counts;
    for (int r = 0; n.ranks && r < ranks; r++)
        free(n.ranks[r].messages);
    free(n.ranks);
    nd_fibers_destroy(n.fibers);
    if (n.error.status != ND_OK)
        nd_error_set(&n.error);
    return status;
}
