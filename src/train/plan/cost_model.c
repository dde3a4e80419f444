#include "train/plan/cost_model.h"

#include "core/base/sum_tree.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef struct simulation {
    const nd_cost_machine *m;
    double *clock;   /* [ranks] when a rank is free */
    double *began;   /* [ranks] when it began the part at hand */
    double *update;  /* [ranks] seconds of updates: of the part at hand */
    double *updates; /* [ranks] of all parts */
    double *busy;    /* [ranks] seconds in messages */
    double *taken;   /* [ranks] seconds that messages took from the passes of the part at hand */
    double *port_out, *port_in,
        *arrival;     /* [ranks] of a broadcast: when free; of its part at hand */
    double *out, *in; /* [hosts] when a host's link is free */
    int64_t leaves, per_rank;
    double passes; /* of the part at hand */
    double bytes;
    nd_cost_piece piece; /* being reduced */
} simulation;

static double later(double a, double b)
{
    return a > b ? a : b;
}

static int host_of(const nd_cost_machine *m, int rank)
{
    return (int)((int64_t)rank * m->hosts / m->ranks);
}

static double last(const simulation *s)
{
    double latest = 0.0;
    for (int r = 0; r < s->m->ranks; r++)
        latest = later(latest, s->clock[r]);
    return latest;
}

/* What a message beside the passes takes from them. */
static void take(simulation *s, int rank, double begin, double took, double bytes)
{
    const double inside = s->began[rank] + s->passes - begin;
    if (inside > 0.0)
        s->taken[rank] += s->m->core_per_byte * bytes * (inside < took ? inside / took : 1.0);
}

/* A partial sum, added where it arrives. The sender is free when its bytes are away. */
static void send_sum(simulation *s, int from, int to, double bytes)
{
    const nd_cost_machine *m = s->m;
    const int a = host_of(m, from), b = host_of(m, to);
    const nd_cost_link link = a == b ? m->within : m->between;
    const bool adding_is_slower = m->add_per_byte > link.per_byte;
    const double slow = adding_is_slower ? m->add_per_byte : link.per_byte;
    const double fast = adding_is_slower ? link.per_byte : m->add_per_byte;
    double begin = later(s->clock[from], s->clock[to]);
    if (a != b)
        begin = later(begin, later(s->out[a], s->in[b]));
    const double away = link.latency + bytes * slow;
    const double took = away + fast * (bytes < m->part_bytes ? bytes : m->part_bytes);
    s->clock[from] = begin + away;
    s->clock[to] = begin + took;
    if (a != b)
        s->out[a] = s->in[b] = begin + away;
    s->busy[from] += away;
    s->busy[to] += took;
    take(s, from, begin, away, bytes);
    take(s, to, begin, took, bytes);
    s->bytes += bytes;
}

/* The sum of leaves a..b-1 of the piece; returns the rank that holds it (dist/tree_reduction.c). */
static int reduce_node(simulation *s, int64_t a, int64_t b)
{
    const int first = (int)(a / s->per_rank), end = (int)((b - 1) / s->per_rank);
    if (first == end)
        return first;
    const int64_t middle = a + nd_sum_tree_left(b - a);
    const int left = reduce_node(s, a, middle), right = reduce_node(s, middle, b);
    if (left == right)
        return left;
    const int into = right == s->piece.owner ? right : left;
    send_sum(s, into == right ? left : right, into, s->piece.bytes);
    return into;
}

static void reduce(simulation *s, const nd_cost_part *part)
{
    for (int64_t i = 0; i < part->count; i++) {
        s->piece = part->pieces[i];
        for (int r = 0; r < s->m->ranks; r++)
            s->clock[r] = later(s->clock[r], s->began[r] + s->piece.ready);
        reduce_node(s, 0, s->leaves);
    }
}

/* All ranks go in step; those of a host whose peer is on another share its link. */
static double allgather_round(simulation *s, double bytes, int distance)
{
    const nd_cost_machine *m = s->m;
    const int per_host = (m->ranks + m->hosts - 1) / m->hosts;
    const int crossing = m->hosts == 1 ? 0 : distance < per_host ? distance : per_host;
    s->bytes += bytes * m->ranks;
    return crossing > 0 ? m->between.latency + crossing * bytes * m->between.per_byte
                        : m->within.latency + bytes * m->within.per_byte;
}

static void allgather(simulation *s, double bytes)
{
    const int ranks = s->m->ranks;
    double took = 0.0;
    if (bytes == 0.0)
        return;
    if (bytes < s->m->ring_bytes)
        for (int have = 1; have < ranks; have *= 2)
            took += allgather_round(s, bytes * (have < ranks - have ? have : ranks - have), have);
    else
        for (int round = 1; round < ranks; round++)
            took += allgather_round(s, bytes, 1);
    const double end = last(s) + took;
    for (int r = 0; r < ranks; r++) {
        s->clock[r] = end;
        s->busy[r] += took;
    }
}

/* A rank sends a part on while it receives the next. */
static void send_part(simulation *s, int from, int to, double bytes)
{
    const nd_cost_machine *m = s->m;
    const int a = host_of(m, from), b = host_of(m, to);
    const nd_cost_link link = a == b ? m->within : m->between;
    double begin = later(s->arrival[from], later(s->port_out[from], s->port_in[to]));
    if (a != b)
        begin = later(begin, later(s->out[a], s->in[b]));
    const double end = begin + bytes * link.per_byte;
    s->port_out[from] = s->port_in[to] = end;
    if (a != b)
        s->out[a] = s->in[b] = end;
    s->arrival[to] = end + link.latency;
    s->busy[from] += end - begin;
    s->busy[to] += end - begin + link.latency;
    s->bytes += bytes;
}

/* Down a binomial tree, as in dist/comm_mpi.c: a rank sends to the child with the highest bit first. */
static void broadcast(simulation *s, int root, double bytes)
{
    const int ranks = s->m->ranks;
    const size_t all = (size_t)ranks * sizeof *s->clock;
    int top = 1;
    while (2 * top < ranks)
        top *= 2;
    memcpy(s->port_out, s->clock, all);
    memcpy(s->port_in, s->clock, all);
    memcpy(s->arrival, s->clock, all);
    for (double left = bytes; left > 0.0; left -= s->m->part_bytes) {
        const double part = left < s->m->part_bytes ? left : s->m->part_bytes;
        s->arrival[root] = s->clock[root];
        for (int bit = top; bit > 0; bit /= 2)
            for (int place = 0; place + bit < ranks; place += 2 * bit)
                send_part(s, (place + root) % ranks, (place + bit + root) % ranks, part);
    }
    for (int r = 0; r < ranks; r++)
        s->clock[r] = later(s->arrival[r], s->port_out[r]);
}

static void settle(simulation *s, const nd_cost_part *part, double losses, nd_cost *cost)
{
    const int ranks = s->m->ranks;
    double longest = 0.0;
    memcpy(s->began, s->clock, (size_t)ranks * sizeof *s->clock);
    memset(s->taken, 0, (size_t)ranks * sizeof *s->taken);
    s->passes = part->passes;
    reduce(s, part);
    double computed = 0.0, taken = 0.0;
    for (int r = 0; r < ranks; r++) {
        const double done = s->began[r] + part->passes + s->taken[r];
        computed = later(computed, done);
        taken = later(taken, s->taken[r]);
        s->clock[r] = later(s->clock[r], done);
    }
    allgather(s, losses);
    allgather(s, part->norms);
    cost->passes += part->passes + taken;
    cost->reduced += last(s) - computed;
    memset(s->update, 0, (size_t)ranks * sizeof *s->update);
    for (int64_t i = 0; i < part->count; i++)
        s->update[part->pieces[i].owner] += part->pieces[i].update;
    for (int r = 0; r < ranks; r++) {
        s->clock[r] += s->update[r];
        s->updates[r] += s->update[r];
        longest = later(longest, s->update[r]);
    }
    cost->updated += longest;
}

static void run(simulation *s, const nd_cost_work *work, nd_cost *cost)
{
    const int ranks = s->m->ranks;
    for (int64_t i = 0; i < work->count; i++)
        settle(s, &work->parts[i], i == 0 ? work->losses : 0.0, cost);
    const double updated = last(s);
    for (int r = 0; r < ranks && ranks > 1; r++)
        broadcast(s, r, work->codes[r]);
    allgather(s, work->report);
    cost->step = last(s);
    cost->codes = cost->step - updated;
    cost->bytes = s->bytes;
    cost->idlest = s->updates[0];
    for (int r = 0; r < ranks; r++) {
        cost->busy = later(cost->busy, s->busy[r]);
        cost->idlest = s->updates[r] < cost->idlest ? s->updates[r] : cost->idlest;
    }
}

nd_status nd_cost_predict(const nd_cost_machine *m, const nd_cost_work *work, nd_cost *cost)
{
    memset(cost, 0, sizeof *cost);
    if (m->ranks < 1 || m->hosts < 1 || m->hosts > m->ranks || work->leaves % m->ranks != 0)
        return ND_FAIL(ND_EINTERNAL, "%d ranks on %d hosts for a sum of %lld parts", m->ranks,
                       m->hosts, (long long)work->leaves);
    const size_t ranks = (size_t)m->ranks;
    double *memory = calloc(9 * ranks + 2 * (size_t)m->hosts, sizeof *memory);
    if (!memory)
        return ND_FAIL(ND_ENOMEM, "no memory for the clocks of %d ranks", m->ranks);
    simulation s = {.m = m,
                    .clock = memory,
                    .began = memory + ranks,
                    .update = memory + 2 * ranks,
                    .updates = memory + 3 * ranks,
                    .busy = memory + 4 * ranks,
                    .taken = memory + 5 * ranks,
                    .port_out = memory + 6 * ranks,
                    .port_in = memory + 7 * ranks,
                    .arrival = memory + 8 * ranks,
                    .out = memory + 9 * ranks,
                    .in = memory + 9 * ranks + m->hosts,
                    .leaves = work->leaves,
                    .per_rank = work->leaves / m->ranks};
    run(&s, work, cost);
    free(memory);
    return ND_OK;
}
