#include "train/plan/cost_messages.h"

#include "dist/reduction/gradient_wire.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

nd_status nd_cost_clocks_create(const nd_cost_machine *m, nd_cost_clocks *c)
{
    const size_t ranks = (size_t)m->ranks;
    *c = (nd_cost_clocks){.m = m};
    ND_TRY(nd_links_create(m->between, m->within, m->ranks, m->hosts, &c->links));
    c->links.compressed = m->compressed;
    c->windows = calloc(ranks, sizeof *c->windows);
    c->clock = calloc(4 * ranks, sizeof *c->clock);
    if (!c->windows || !c->clock) {
        nd_cost_clocks_destroy(c);
        return ND_FAIL(ND_ENOMEM, "no memory for the clocks of %d ranks", m->ranks);
    }
    c->busy = c->clock + ranks;
    c->taken = c->busy + ranks;
    c->passes_end = c->taken + ranks;
    return ND_OK;
}

void nd_cost_clocks_destroy(nd_cost_clocks *c)
{
    nd_links_destroy(&c->links);
    free(c->windows);
    free(c->clock);
    memset(c, 0, sizeof *c);
}

double nd_cost_clocks_last(const nd_cost_clocks *c)
{
    double latest = 0.0;
    for (int r = 0; r < c->m->ranks; r++)
        latest = fmax(latest, c->clock[r]);
    return latest;
}

/* The computing time that a message takes from overlapping passes. */
static void take(nd_cost_clocks *c, int rank, double begin, double end, double bytes)
{
    const double inside = c->passes_end[rank] - begin, took = end - begin;
    if (inside > 0.0)
        c->taken[rank] += c->m->core_per_byte * bytes * (inside < took ? inside / took : 1.0);
}

void nd_cost_carry(nd_cost_clocks *c, const nd_link_message *m, double ready, double add,
                   double *away, double *here)
{
    const bool local = nd_links_host(&c->links, m->from) == nd_links_host(&c->links, m->to);
    const double takes = nd_links_carry(&c->links, m, ready, away, here);
    const double begin = *away - takes;
    c->busy[m->from] += takes;
    c->busy[m->to] += (local ? c->m->within : c->m->between).latency + takes + m->bytes * add;
    take(c, m->from, begin, *away, m->bytes);
    take(c, m->to, begin, *here + add * m->bytes, m->bytes);
    c->bytes += m->bytes;
}

static void open_windows(nd_cost_clocks *c)
{
    memset(c->windows, 0, (size_t)c->m->ranks * sizeof *c->windows);
    for (int r = 0; r < c->m->ranks; r++)
        c->windows[r].opened = c->clock[r];
}

/* A rank is free when its last sends have left. */
static void close_windows(nd_cost_clocks *c)
{
    for (int r = 0; r < c->m->ranks; r++)
        for (int i = 0; i < ND_WIRE_DEPTH; i++)
            c->clock[r] = fmax(c->clock[r], c->windows[r].sent[i]);
}

/* When a rank can start send `number`. */
static double start_send(nd_cost_clocks *c, int rank, int64_t number)
{
    c->clock[rank] = fmax(c->clock[rank], c->windows[rank].sent[number % ND_WIRE_DEPTH]);
    return c->clock[rank];
}

/* A message sent at `started`, stored at its destination. */
static void carry(nd_cost_clocks *c, int from, int to, double bytes, double started)
{
    nd_cost_window *out = &c->windows[from], *in = &c->windows[to];
    const double open =
        in->receives < ND_WIRE_DEPTH ? in->opened : in->taken[in->receives % ND_WIRE_DEPTH];
    double away, here;
    nd_cost_carry(c, &(nd_link_message){from, to, bytes, false}, fmax(started, open), 0.0, &away,
                  &here);
    out->sent[out->sends++ % ND_WIRE_DEPTH] = away;
    c->clock[to] = fmax(c->clock[to], here);
    in->taken[in->receives++ % ND_WIRE_DEPTH] = c->clock[to];
}

double nd_cost_part_bytes(const nd_cost_machine *m, double bytes)
{
    const double least = bytes / ND_COST_PARTS_MAX;
    return least > m->part_bytes ? ND_WIRE_BLOCK_BYTES * ceil(least / ND_WIRE_BLOCK_BYTES)
                                 : m->part_bytes;
}

/* What a rank sends to the right: its own parts, then those of the ranks to its left. */
typedef struct stream {
    int owner;
    int64_t part, own, number, started,
        count; /* the owner's next part; parts of its own, sent, started, in total */
    double starts[ND_WIRE_DEPTH];
} stream;

typedef struct ring {
    nd_cost_clocks *c;
    int ranks;           /* of a group */
    const double *bytes; /* [ranks] */
    double size;         /* of parts */
    int64_t parts;
    stream *out; /* of all ranks */
} ring;

static int64_t parts_of(const ring *g, int rank)
{
    return nd_wire_parts((size_t)g->bytes[rank], (size_t)g->size);
}

static double next_part(const ring *g, stream *s)
{
    const int ranks = g->ranks;
    while (s->part == parts_of(g, s->owner)) {
        s->owner = (s->owner + ranks - 1) % ranks;
        s->part = 0;
    }
    const double left = g->bytes[s->owner] - (double)s->part++ * g->size;
    return left < g->size ? left : g->size;
}

static void send_ahead(const ring *g, int rank, int64_t round, int64_t taken)
{
    stream *s = &g->out[rank];
    for (;
         s->started < s->count && s->started < round + ND_WIRE_DEPTH && s->started < s->own + taken;
         s->started++)
        s->starts[s->started % ND_WIRE_DEPTH] = start_send(g->c, rank, s->started);
}

/* One round of a group; the left neighbor of member `starts` has parts of its own. */
static void advance(const ring *g, int64_t round, int first, int starts)
{
    for (int r = first; r < first + g->ranks; r++)
        if (g->out[r].own > 0)
            send_ahead(g, r, round, round);
    for (int i = 0; i < g->ranks; i++) {
        const int m = (starts + i) % g->ranks, left = first + (m + g->ranks - 1) % g->ranks;
        stream *in = &g->out[left];
        if (in->number < in->count) {
            const double started = in->starts[in->number++ % ND_WIRE_DEPTH];
            carry(g->c, left, first + m, next_part(g, in), started);
        }
        if (g->out[first + m].own == 0)
            send_ahead(g, first + m, round, round + 1);
    }
}

nd_status nd_cost_broadcast_each(nd_cost_clocks *c, int group, const double *bytes)
{
    const int ranks = c->m->ranks;
    int starts = 0;
    double all = 0.0;
    for (int m = 0; m < group; m++) {
        all += bytes[m];
        starts = bytes[m] > 0.0 ? (m + 1) % group : starts;
    }
    if (all == 0.0 || group == 1)
        return ND_OK;
    ND_AUTOFREE stream *out = calloc((size_t)ranks, sizeof *out);
    ND_FAIL_IF(!out, ND_ENOMEM, "no memory for the messages of a plan");
    ring g = {
        .c = c, .ranks = group, .bytes = bytes, .size = nd_cost_part_bytes(c->m, all), .out = out};
    for (int m = 0; m < group; m++)
        g.parts += parts_of(&g, m);
    for (int r = 0; r < ranks; r++)
        out[r] = (stream){.owner = r % group,
                          .own = parts_of(&g, r % group),
                          .count = g.parts - parts_of(&g, (r + 1) % group)};
    open_windows(c);
    for (int64_t round = 0; round < g.parts; round++)
        for (int first = 0; first < ranks; first += group)
            advance(&g, round, first, starts);
    close_windows(c);
    return ND_OK;
}

/* All ranks proceed in lockstep, each sending to the rank `distance` before it or to its right
 * neighbor; ranks whose peer is on another host share their host's link. */
static double allgather_round(nd_cost_clocks *c, double bytes, int distance, bool right)
{
    const nd_cost_machine *m = c->m;
    for (int r = 0; r < m->ranks && m->hosts > 1; r++) {
        const int from = nd_links_host(&c->links, r);
        const int to =
            nd_links_host(&c->links, (right ? r + 1 : r + m->ranks - distance) % m->ranks);
        c->links.sent[from] += from != to ? bytes : 0.0;
        c->links.received[to] += from != to ? bytes : 0.0;
    }
    const int per_host = (m->ranks + m->hosts - 1) / m->hosts;
    const int crossing = m->hosts == 1 ? 0 : distance < per_host ? distance : per_host;
    c->bytes += bytes * m->ranks;
    return crossing > 0 ? m->between.latency + crossing * bytes * m->between.per_byte
                        : m->within.latency + bytes * m->within.per_byte;
}

void nd_cost_allgather(nd_cost_clocks *c, double bytes)
{
    const int ranks = c->m->ranks;
    double took = 0.0;
    if (bytes == 0.0)
        return;
    if (bytes < c->m->ring_bytes)
        for (int have = 1; have < ranks; have *= 2)
            took += allgather_round(c, bytes * (have < ranks - have ? have : ranks - have), have,
                                    false);
    else
        for (int round = 1; round < ranks; round++)
            took += allgather_round(c, bytes, 1, true);
    const double end = nd_cost_clocks_last(c) + took;
    for (int r = 0; r < ranks; r++) {
        c->clock[r] = end;
        c->busy[r] += took;
    }
}

/* Down a binomial tree, forwarding each part as it arrives; the highest bit's child is first. */
void nd_cost_broadcast(nd_cost_clocks *c, nd_cost_group group, int root, double bytes)
{
    const int ranks = group.size, first = group.first;
    int top = 1;
    while (2 * top < ranks)
        top *= 2;
    open_windows(c);
    const double begun = c->clock[first + root], size = c->m->part_bytes;
    for (double left = bytes; left > 0.0; left -= size) {
        c->clock[first + root] = begun; /* sends are started one after another without waiting */
        for (int bit = top; bit > 0; bit /= 2)
            for (int place = 0; place + bit < ranks; place += 2 * bit) {
                const int from = first + (place + root) % ranks;
                carry(c, from, first + (place + bit + root) % ranks, left < size ? left : size,
                      c->clock[from]);
            }
    }
    close_windows(c);
}
