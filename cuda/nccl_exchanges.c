#include "nccl_exchanges.h"

#include <stdio.h>

/* Longer between two looks, and this process was stopped. */
static const double longest_nap = 1.0;

static void describe(const nd_nccl_exchange *x, char *text, size_t size)
{
    char more[32] = "";
    if (x->more > 0)
        snprintf(more, sizeof more, " and %lld more", (long long)x->more);
    snprintf(text, size, "%s%s%s%s, begun in step %lld, phase %s", x->what, x->first ? " " : "",
             x->first ? x->first : "", more, (long long)x->step, x->phase ? x->phase : "start");
}

nd_status nd_nccl_exchanges_fail(nd_nccl_exchanges *e, const char *what, const char *reason)
{
    const nd_comm *comm = e->comm;
    if (!e->failed)
        e->device.give_up(e->device.context);
    e->failed = true;
    return ND_FAIL(ND_EPEER, "rank %d of %d in step %lld, phase %s: %s: %s", comm->rank, comm->size,
                   (long long)comm->step, comm->phase ? comm->phase : "start", what, reason);
}

static nd_status still_well(const nd_nccl_exchanges *e)
{
    return ND_CHECK(!e->failed, ND_EPEER, "rank %d of %d: NCCL failed before", e->comm->rank,
                    e->comm->size);
}

static nd_status fail_waiting(nd_nccl_exchanges *e, const char *reason)
{
    char what[256];
    describe(&e->list[e->done % ND_NCCL_EXCHANGES], what, sizeof what);
    return nd_nccl_exchanges_fail(e, what, reason);
}

/* *passed: whether the oldest has ended; then it is booked. */
static nd_status poll_exchange(nd_nccl_exchanges *e, bool *passed)
{
    const nd_nccl_device *d = &e->device;
    const int slot = (int)(e->done % ND_NCCL_EXCHANGES);
    ND_TRY(d->reached(d->context, slot, true, passed));
    if (*passed) {
        e->comm->busy_seconds += d->seconds(d->context, slot);
        e->done++;
    }
    return ND_OK;
}

/* Waits until `count` are done. */
static nd_status wait_for(nd_nccl_exchanges *e, int64_t count)
{
    const nd_nccl_device *d = &e->device;
    bool passed, runs = false; /* the oldest, whose computation is done */
    double waited = 0.0, last = d->now(d->context);
    ND_TRY(still_well(e));
    while (e->done < count) {
        ND_TRY(poll_exchange(e, &passed));
        const double now = d->now(d->context), since = now - last;
        last = now;
        if (runs) {
            e->comm->wait_seconds += since;
            waited += since < longest_nap ? since : 0.0;
        }
        if (passed) {
            runs = false;
            waited = 0.0;
            continue;
        }
        const char *trouble = d->trouble(d->context);
        if (trouble)
            return fail_waiting(e, trouble);
        if (!runs)
            ND_TRY(d->reached(d->context, (int)(e->done % ND_NCCL_EXCHANGES), false, &runs));
        if (waited > e->comm->timeout_seconds) {
            char reason[160];
            snprintf(reason, sizeof reason,
                     "not done after %.0f s; another rank is dead, stopped, or busy for longer "
                     "than the timeout (NCCL does not say which)",
                     waited);
            return fail_waiting(e, reason);
        }
        d->nap(d->context);
    }
    return ND_OK;
}

nd_status nd_nccl_exchanges_begin(nd_nccl_exchanges *e, const char *what, const char *first,
                                  int64_t more, int *slot)
{
    ND_TRY(still_well(e));
    if (e->begun - e->done == ND_NCCL_EXCHANGES)
        ND_TRY(wait_for(e, e->done + 1));
    *slot = (int)(e->begun % ND_NCCL_EXCHANGES);
    e->list[*slot] = (nd_nccl_exchange){what, first, more, e->comm->step, e->comm->phase};
    e->begun++;
    return ND_OK;
}

nd_status nd_nccl_exchanges_fence(nd_nccl_exchanges *e)
{
    bool passed = true;
    ND_TRY(still_well(e));
    e->fenced = e->begun;
    while (passed && e->done < e->begun)
        ND_TRY(poll_exchange(e, &passed));
    const char *trouble = e->done < e->begun ? e->device.trouble(e->device.context) : NULL;
    return trouble ? fail_waiting(e, trouble) : ND_OK;
}

nd_status nd_nccl_exchanges_wait(nd_nccl_exchanges *e)
{
    return wait_for(e, e->fenced);
}

nd_status nd_nccl_exchanges_wait_all(nd_nccl_exchanges *e)
{
    return wait_for(e, e->begun);
}
