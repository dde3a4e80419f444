#include "dist/simulation/transport_simulated.h"

#include "core/base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct message message;

/* Started and not yet waited for. */
struct message {
    enum { NONE, POSTED, MATCHED } state;
    int rank, peer, bytes;
    int came; /* received bytes */
    bool accepts_short;
    bool receives;
    void *data;
    int kind; /* kind and number of the collective */
    int64_t sequence;
    const message *stranger; /* a send of another collective, which the receive met */
    double done;             /* when it is sent or received */
    message *next;           /* of the queue, in order */
};

/* Oldest first. */
typedef struct queue {
    message *first, **last;
} queue;

struct nd_simulated_endpoint {
    message slots[ND_TRANSPORT_SLOTS];
    /* messages to this rank and receives of this rank that have no partner yet */
    queue sends, receives;
    const message *waits; /* the message its fiber waits for; NULL: none */
    uint64_t waited;      /* number of waits; its pauses are drawn from it */
};

typedef struct simulated_transport {
    nd_transport base;
    nd_simulated_net *net;
} simulated_transport;

nd_status nd_simulated_net_create(const nd_simulated_machine *m, nd_simulated_net *net)
{
    *net = (nd_simulated_net){.machine = *m};
    ND_TRY(nd_links_create(m->between, m->within, m->ranks, m->hosts, &net->links));
    net->links.compressed = m->compressed;
    net->ends = calloc((size_t)m->ranks, sizeof *net->ends);
    if (!net->ends) {
        nd_links_destroy(&net->links);
        return ND_FAIL(ND_ENOMEM, "no memory for the messages of %d ranks", m->ranks);
    }
    for (int r = 0; r < m->ranks; r++) {
        net->ends[r].sends.last = &net->ends[r].sends.first;
        net->ends[r].receives.last = &net->ends[r].receives.first;
    }
    return ND_OK;
}

void nd_simulated_net_destroy(nd_simulated_net *net)
{
    nd_links_destroy(&net->links);
    free(net->ends);
    memset(net, 0, sizeof *net);
}

static simulated_transport *of(nd_transport *transport)
{
    return (simulated_transport *)transport;
}

static bool destroy(nd_transport *transport)
{
    free(transport);
    return true;
}

static double now(nd_transport *transport)
{
    return nd_fibers_now(of(transport)->net->fibers);
}

/* Removes the oldest message of this pair and returns it, else NULL. */
static message *take(queue *q, int rank, int peer)
{
    for (message **at = &q->first; *at; at = &(*at)->next) {
        message *found = *at;
        if (found->rank != rank || found->peer != peer)
            continue;
        *at = found->next;
        if (!*at)
            q->last = at;
        return found;
    }
    return NULL;
}

static void append(queue *q, message *m)
{
    m->next = NULL;
    *q->last = m;
    q->last = &m->next;
}

static void go_on(const nd_simulated_net *net, const message *m)
{
    nd_simulated_endpoint *end = &net->ends[m->rank];
    if (end->waits != m)
        return;
    end->waits = NULL;
    nd_fibers_wake(net->fibers, m->rank, m->done);
}

static void meet(nd_simulated_net *net, message *send, message *receive)
{
    const nd_link_message m = {send->rank, receive->rank, send->bytes, receive->accepts_short};
    nd_links_carry(&net->links, &m, nd_fibers_now(net->fibers), &send->done, &receive->done);
    send->state = receive->state = MATCHED;
    const bool fits =
        receive->accepts_short ? send->bytes <= receive->bytes : send->bytes == receive->bytes;
    receive->came = send->bytes;
    if (!fits || send->sequence != receive->sequence)
        receive->stranger = send;
    else if (send->bytes > 0)
        memcpy(receive->data, send->data, (size_t)send->bytes);
    go_on(net, send);
    go_on(net, receive);
}

static message *post(simulated_transport *t, int slot, bool receives, void *data, int bytes,
                     int peer)
{
    message *m = &t->net->ends[t->base.comm->rank].slots[slot];
    *m = (message){.state = POSTED,
                   .rank = t->base.comm->rank,
                   .peer = peer,
                   .bytes = bytes,
                   .receives = receives,
                   .accepts_short = receives && t->base.accepts_short,
                   .data = data,
                   .kind = t->base.situation.kind,
                   .sequence = t->base.situation.sequence};
    return m;
}

static nd_status send_message(nd_transport *transport, int slot, const void *data, int bytes,
                              int to)
{
    simulated_transport *t = of(transport);
    message *send = post(t, slot, false, (void *)data, bytes, to);
    message *receive = take(&t->net->ends[to].receives, to, transport->comm->rank);
    if (receive)
        meet(t->net, send, receive);
    else
        append(&t->net->ends[to].sends, send);
    return ND_OK;
}

static nd_status receive_message(nd_transport *transport, int slot, void *data, int bytes, int from)
{
    simulated_transport *t = of(transport);
    nd_simulated_endpoint *mine = &t->net->ends[transport->comm->rank];
    message *receive = post(t, slot, true, data, bytes, from);
    message *send = take(&mine->sends, from, transport->comm->rank);
    if (send)
        meet(t->net, send, receive);
    else
        append(&mine->receives, receive);
    return ND_OK;
}

static nd_status fail(nd_transport *transport, const message *m, const char *waits, const char *why)
{
    char text[512];
    transport->failed = true;
    transport->situation.waits_for = m->peer;
    nd_situation_describe(text, sizeof text, &transport->situation, waits);
    return ND_FAIL(ND_EPEER, "%s: %s", text, why);
}

static nd_status refuse(nd_transport *transport, const message *m)
{
    char why[160];
    const message *other = m->stranger;
    if (other->sequence == m->sequence)
        snprintf(why, sizeof why, "%d bytes arrived, %d were expected", other->bytes, m->bytes);
    else
        snprintf(why, sizeof why, "unmatched: rank %d is in %s (collective %lld)", other->rank,
                 nd_collective_name(other->kind), (long long)other->sequence);
    return fail(transport, m, "received from", why);
}

static nd_status wait_for(nd_transport *transport, int slot)
{
    simulated_transport *t = of(transport);
    nd_simulated_net *net = t->net;
    const nd_simulated_machine *machine = &net->machine;
    nd_simulated_endpoint *end = &net->ends[transport->comm->rank];
    message *m = &end->slots[slot];
    if (m->state == NONE)
        return ND_OK;
    if (m->state == POSTED) {
        end->waits = m;
        if (!nd_fibers_block(net->fibers))
            return fail(transport, m, "waits for", "no rank can go on: it has ended, or waits too");
    }
    if (net->aborted)
        return fail(transport, m, "waits for", "the job was aborted");
    if (m->stranger)
        return refuse(transport, m);
    m->state = NONE;
    if (m->receives)
        transport->received = m->came;
    double until = m->done;
    if (m->receives && m->kind == ND_COLLECTIVE_REDUCTION)
        until += machine->add_per_byte * m->bytes;
    if (machine->delay > 0.0)
        until +=
            machine->delay *
            nd_rng_uniform(nd_rng_key(machine->seed + (uint64_t)m->rank, "delay"), end->waited++);
    nd_fibers_sleep(net->fibers, until);
    return ND_OK;
}

/* Drops posted messages, whose memory may be freed. */
static void cancel(nd_transport *transport)
{
    nd_simulated_net *net = of(transport)->net;
    const int rank = transport->comm->rank;
    net->ends[rank].waits = NULL;
    for (int slot = 0; slot < ND_TRANSPORT_SLOTS; slot++) {
        const message *m = &net->ends[rank].slots[slot];
        queue *q = m->receives ? &net->ends[rank].receives : &net->ends[m->peer].sends;
        while (m->state == POSTED && take(q, rank, m->peer))
            ;
    }
}

static void set_yielding(nd_transport *transport, bool yields)
{
    (void)transport, (void)yields; /* waiting uses no processor here */
}

static void interrupt(nd_transport *transport)
{
    (void)transport; /* there is no other thread */
}

nd_status nd_transport_simulated_create(nd_simulated_net *net, nd_comm *comm,
                                        nd_transport **transport)
{
    simulated_transport *made = calloc(1, sizeof *made);
    ND_FAIL_IF(!made, ND_ENOMEM, "no memory for the messages of rank %d", comm->rank);
    made->base = (nd_transport){.ops = {destroy, now, send_message, receive_message, wait_for,
                                        cancel, set_yielding, interrupt},
                                .comm = comm,
                                .situation = {.rank = comm->rank}};
    made->net = net;
    *transport = &made->base;
    return ND_OK;
}
