#include "train/plan/cost_model.h"

#include "train/plan/cost_messages.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct simulation {
    nd_cost_clocks clocks;
    const nd_cost_work *work;
    double *began;   /* [ranks] start of the current part */
    double *update;  /* [ranks] seconds of updates in the current part */
    double *updates; /* [ranks] in all parts */
    double *until;   /* [ranks] of the current part, up to an exchange */
    double updated;  /* when the last update ended */
    int64_t sent;    /* exchanges of weights so far */
} simulation;

static nd_status reduce(simulation *s, const nd_cost_part *part)
{
    nd_cost_clocks *c = &s->clocks;
    for (int64_t first = 0, end; first < part->count; first = end) {
        const double ready = part->pieces[first].ready;
        const int64_t reduction = part->pieces[first].reduction;
        for (end = first + 1; end < part->count && part->pieces[end].reduction == reduction; end++)
            ;
        for (int r = 0; r < c->m->ranks; r++)
            c->clock[r] = fmax(c->clock[r], s->began[r] + ready);
        ND_TRY(nd_cost_reduce(c, s->work, part->pieces + first, end - first));
    }
    return ND_OK;
}

static nd_status send_next(simulation *s)
{
    const int group = nd_cost_group_of(s->work, s->clocks.m->ranks);
    return nd_cost_broadcast_each(&s->clocks, group, s->work->codes + group * s->sent++);
}

/* Sends the weights of `updated` (NULL: none), which are updated since s->began. */
static nd_status send_updated(simulation *s, const nd_cost_part *updated)
{
    nd_cost_clocks *c = &s->clocks;
    while (updated && s->sent < updated->exchanges) {
        for (int r = 0; r < c->m->ranks; r++)
            c->clock[r] = fmax(c->clock[r], s->began[r] + s->update[r]);
        ND_TRY(send_next(s));
    }
    return ND_OK;
}

/* Reduces a part (NULL: none) while ranks compute s->update and `passes` seconds, and send what is
 * `updated` (NULL: nothing); ends when all are done and the part's norms are exchanged. */
static nd_status run_stage(simulation *s, const nd_cost_part *part, const nd_cost_part *updated,
                           double passes, double losses, nd_cost *cost)
{
    nd_cost_clocks *c = &s->clocks;
    const int ranks = c->m->ranks;
    double computed = 0.0, taken = 0.0;
    memcpy(s->began, c->clock, (size_t)ranks * sizeof *c->clock);
    memset(c->taken, 0, (size_t)ranks * sizeof *c->taken);
    for (int r = 0; r < ranks; r++)
        c->passes_end[r] = s->began[r] + s->update[r] + passes;
    if (part)
        ND_TRY(s->work->ahead ? nd_cost_reduce(c, s->work, part->pieces, part->count)
                              : reduce(s, part));
    ND_TRY(send_updated(s, updated));
    for (int r = 0; r < ranks; r++) {
        const double done = c->passes_end[r] + c->taken[r];
        computed = fmax(computed, done);
        taken = fmax(taken, c->taken[r]);
        c->clock[r] = fmax(c->clock[r], done);
        c->passes_end[r] = 0.0; /* nothing else overlaps them */
    }
    nd_cost_allgather(c, losses);
    nd_cost_allgather(c, part ? part->norms : 0.0);
    cost->passes += passes + taken;
    cost->reduced += nd_cost_clocks_last(c) - computed;
    return ND_OK;
}

/* s->update: seconds of each rank's share of a part's update. */
static void share_update(simulation *s, const nd_cost_part *part, nd_cost *cost)
{
    const int ranks = s->clocks.m->ranks, group = nd_cost_group_of(s->work, ranks);
    double longest = 0.0;
    memset(s->update, 0, (size_t)ranks * sizeof *s->update);
    for (int64_t i = 0; part && i < part->count; i++)
        for (int r = part->pieces[i].owner; r < ranks; r += group)
            s->update[r] += part->pieces[i].update;
    for (int r = 0; r < ranks; r++) {
        s->updates[r] += s->update[r];
        longest = fmax(longest, s->update[r]);
    }
    cost->updated += longest;
}

/* Updates a part and sends the weights of the exchanges that it completes. */
static nd_status update(simulation *s, const nd_cost_part *part)
{
    nd_cost_clocks *c = &s->clocks;
    const int ranks = c->m->ranks, group = nd_cost_group_of(s->work, ranks);
    const nd_cost_piece *piece, *end = part->pieces + part->count;
    memcpy(s->began, c->clock, (size_t)ranks * sizeof *c->clock);
    memset(s->until, 0, (size_t)ranks * sizeof *s->until);
    while (s->sent < part->exchanges) {
        for (piece = part->pieces; piece < end; piece++)
            for (int r = piece->owner; r < ranks && piece->exchange == s->sent; r += group)
                s->until[r] += piece->update;
        for (int r = 0; r < ranks; r++)
            c->clock[r] = fmax(c->clock[r], s->began[r] + s->until[r]);
        ND_TRY(send_next(s));
    }
    for (int r = 0; r < ranks; r++) {
        s->updated = fmax(s->updated, s->began[r] + s->update[r]);
        c->clock[r] = fmax(c->clock[r], s->began[r] + s->update[r]);
    }
    memset(s->update, 0, (size_t)ranks * sizeof *s->update);
    return ND_OK;
}

/* Up to the last update. */
static nd_status run_parts(simulation *s, nd_cost *cost)
{
    const nd_cost_work *work = s->work;
    const nd_cost_part *parts = work->parts, *before = NULL, *updated = NULL;
    for (int64_t i = 0; i < work->count; i++, updated = before, before = &parts[i - 1]) {
        const nd_cost_part *part = work->ahead ? before : &parts[i];
        ND_TRY(run_stage(s, part, updated, parts[i].passes, i == 0 ? work->losses : 0.0, cost));
        share_update(s, part, cost);
        if (!work->ahead)
            ND_TRY(update(s, part));
    }
    if (!work->ahead)
        return ND_OK;
    ND_TRY(run_stage(s, before, updated, 0.0, 0.0, cost));
    share_update(s, before, cost);
    return update(s, before);
}

static nd_status run(simulation *s, nd_cost *cost)
{
    nd_cost_clocks *c = &s->clocks;
    const nd_cost_work *work = s->work;
    const int ranks = c->m->ranks, group = nd_cost_group_of(work, ranks);
    ND_TRY(run_parts(s, cost));
    for (int first = 0; work->streams && first < ranks && group > 1; first += group)
        for (int m = 0; m < group; m++)
            nd_cost_broadcast(c, (nd_cost_group){first, group}, m, work->streams[m]);
    ND_TRY(send_next(s));
    nd_cost_allgather(c, work->report);
    cost->step = nd_cost_clocks_last(c);
    cost->codes = cost->step - s->updated;
    cost->bytes = c->bytes;
    cost->least_updates = s->updates[0];
    for (int r = 0; r < ranks; r++) {
        cost->busy = fmax(cost->busy, c->busy[r]);
        cost->least_updates =
            s->updates[r] < cost->least_updates ? s->updates[r] : cost->least_updates;
    }
    const size_t hosts = (size_t)(c->m->hosts < ND_COST_HOSTS ? c->m->hosts : ND_COST_HOSTS);
    memcpy(cost->sent, c->links.sent, hosts * sizeof *cost->sent);
    memcpy(cost->received, c->links.received, hosts * sizeof *cost->received);
    return ND_OK;
}

nd_status nd_cost_predict(const nd_cost_machine *m, const nd_cost_work *work, nd_cost *cost)
{
    memset(cost, 0, sizeof *cost);
    ND_FAIL_IF(m->ranks < 1 || m->hosts < 1 || m->hosts > m->ranks ||
                   work->leaves % m->ranks != 0 || m->ranks % nd_cost_group_of(work, m->ranks) != 0,
               ND_EINTERNAL, "%d ranks in groups of %d on %d hosts for a sum of %lld parts",
               m->ranks, nd_cost_group_of(work, m->ranks), m->hosts, (long long)work->leaves);
    const size_t ranks = (size_t)m->ranks;
    simulation s = {.work = work, .began = calloc(4 * ranks, sizeof *s.began)};
    ND_FAIL_IF(!s.began, ND_ENOMEM, "no memory for the clocks of %d ranks", m->ranks);
    s.update = s.began + ranks;
    s.updates = s.update + ranks;
    s.until = s.updates + ranks;
    nd_status status = nd_cost_clocks_create(m, &s.clocks);
    ND_IF_OK(run(&s, cost));
    nd_cost_clocks_destroy(&s.clocks);
    free(s.began);
    return status;
}
