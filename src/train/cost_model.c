#include "train/cost_model.h"

#include "core/sum_tree.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct simulation {
    const nd_cost_machine *m;
    double *clock;    /* [ranks] when a rank is free */
    double *began;    /* [ranks] when it began the part at hand */
    double *update;   /* [ranks] seconds of updates: of the part at hand */
    double *updates;  /* [ranks] of all parts */
    double *busy;     /* [ranks] seconds in messages */
    double *out, *in; /* [hosts] when a host's link is free */
    int64_t leaves, per_rank;
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

/* `after`: seconds a byte that the receiver needs before it takes the next part; the sender waits for all
 * but the last. */
static void message(simulation *s, int from, int to, double bytes, double after)
{
    const int a = host_of(s->m, from), b = host_of(s->m, to);
    const nd_cost_link link = a == b ? s->m->within : s->m->between;
    double begin = later(s->clock[from], s->clock[to]);
    if (a != b)
        begin = later(begin, later(s->out[a], s->in[b]));
    const double took = link.latency + bytes * (link.per_byte + after);
    const double tail = after * (bytes < s->m->part_bytes ? bytes : s->m->part_bytes);
    s->clock[to] = begin + took;
    s->clock[from] = begin + took - tail;
    if (a != b)
        s->out[a] = s->in[b] = begin + took - tail;
    s->busy[to] += took;
    s->busy[from] += took - tail;
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
    message(s, into == right ? left : right, into, s->piece.bytes, s->m->add_per_byte);
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
static void allgather(simulation *s, double bytes)
{
    const nd_cost_machine *m = s->m;
    double took = 0.0;
    if (bytes == 0.0)
        return;
    for (int have = 1; have < m->ranks; have *= 2) {
        const double more = bytes * (have < m->ranks - have ? have : m->ranks - have);
        const int per_host = (m->ranks + m->hosts - 1) / m->hosts;
        const int crossing = m->hosts == 1 ? 0 : have < per_host ? have : per_host;
        took += crossing > 0 ? m->between.latency + crossing * more * m->between.per_byte
                             : m->within.latency + more * m->within.per_byte;
        s->bytes += more * m->ranks;
    }
    const double end = last(s) + took;
    for (int r = 0; r < m->ranks; r++) {
        s->clock[r] = end;
        s->busy[r] += took;
    }
}

/* Down a binomial tree, as in dist/comm_mpi.c: a rank sends to the child with the highest bit first. */
static void broadcast_part(simulation *s, int root, double bytes)
{
    const int ranks = s->m->ranks;
    int top = 1;
    while (2 * top < ranks)
        top *= 2;
    for (int bit = top; bit > 0; bit /= 2)
        for (int place = 0; place + bit < ranks; place += 2 * bit)
            message(s, (place + root) % ranks, (place + bit + root) % ranks, bytes, 0.0);
}

static void broadcast(simulation *s, int root, double bytes)
{
    for (double left = bytes; left > 0.0; left -= s->m->part_bytes)
        broadcast_part(s, root, left < s->m->part_bytes ? left : s->m->part_bytes);
}

static void settle(simulation *s, const nd_cost_part *part, double losses, nd_cost *cost)
{
    const int ranks = s->m->ranks;
    double longest = 0.0;
    memcpy(s->began, s->clock, (size_t)ranks * sizeof *s->clock);
    reduce(s, part);
    double computed = 0.0;
    for (int r = 0; r < ranks; r++) {
        computed = later(computed, s->began[r] + part->passes);
        s->clock[r] = later(s->clock[r], s->began[r] + part->passes);
    }
    allgather(s, losses);
    allgather(s, part->norms);
    cost->passes += part->passes;
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
    double *memory = calloc(5 * ranks + 2 * (size_t)m->hosts, sizeof *memory);
    if (!memory)
        return ND_FAIL(ND_ENOMEM, "no memory for the clocks of %d ranks", m->ranks);
    simulation s = {.m = m,
                    .clock = memory,
                    .began = memory + ranks,
                    .update = memory + 2 * ranks,
                    .updates = memory + 3 * ranks,
                    .busy = memory + 4 * ranks,
                    .out = memory + 5 * ranks,
                    .in = memory + 5 * ranks + m->hosts,
                    .leaves = work->leaves,
                    .per_rank = work->leaves / m->ranks};
    run(&s, work, cost);
    free(memory);
    return ND_OK;
}
