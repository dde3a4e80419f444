/* Sums of the comm contract among up to 1024 simulated ranks. */
#include "core/base/sum_tree.h"
#include "dist/reduction/tree_reduction.h"
#include "simulated_jobs.h"

#include <stdlib.h>
#include <string.h>

/* Pieces of one to four parts of 256 bytes. */
enum { PIECES = 7, COUNT_MAX = 250, SLOTS_MAX = 8, PART_BYTES = 256 };
static const int64_t counts[PIECES] = {250, 3, 64, 100, 65, 1, 192};

static float summand(int64_t leaf, int64_t i)
{
    return 1.0f / (float)(1 + leaf * 7 + i % 1013);
}

typedef struct partial {
    float values[PIECES][SLOTS_MAX][COUNT_MAX];
    float *slots[PIECES][SLOTS_MAX];
    nd_comm_piece pieces[PIECES];
} partial;

/* As one rank adds them: leaf by leaf onto a stack, equal neighbors merged. */
static void add_leaves(partial *mine, int piece, int64_t first, int64_t leaves)
{
    float *const *slots = mine->slots[piece];
    int depth = 0;
    for (int64_t leaf = first; leaf < first + leaves; leaf++) {
        for (int64_t i = 0; i < counts[piece]; i++)
            slots[depth][i] = summand(leaf, i + piece);
        const int merges = nd_sum_tree_merges(first, leaf);
        for (int upper = depth; upper > depth - merges; upper--)
            for (int64_t i = 0; i < counts[piece]; i++)
                slots[upper - 1][i] += slots[upper][i];
        depth += 1 - merges;
    }
}

typedef struct sums {
    int64_t leaves;
    bool any_order; /* then hosts add first */
    int group;
    nd_gradient_wire format;
    nd_grad_compression grad_compression;
    bool rounded;                      /* expected is what one group makes of them */
    float expected[PIECES][COUNT_MAX]; /* by one rank */
} sums;

static int owner_of(int piece, int ranks)
{
    return (int)((int64_t)piece * 7919 % ranks);
}

static partial *make_partial(int rank, int ranks, const sums *s)
{
    const int64_t part = s->leaves / ranks;
    partial *mine = calloc(1, sizeof *mine);
    for (int p = 0; p < PIECES; p++) {
        for (int slot = 0; slot < SLOTS_MAX; slot++)
            mine->slots[p][slot] = mine->values[p][slot];
        mine->pieces[p] = (nd_comm_piece){.slots = mine->slots[p],
                                          .count = counts[p],
                                          .owner = owner_of(p, s->group),
                                          .taker = owner_of(p, ranks),
                                          .format = s->format};
        add_leaves(mine, p, part * rank, part);
    }
    return mine;
}

static nd_status check_sums(nd_simulation *simulation, nd_comm *comm, void *context)
{
    sums *s = context;
    const int64_t part = s->leaves / comm->size;
    (void)simulation;
    ND_HOLDS(nd_sum_tree_slots(part * comm->rank, part * (comm->rank + 1)) <= SLOTS_MAX);
    partial *mine = make_partial(comm->rank, comm->size, s);
    comm->part_bytes = PART_BYTES;
    comm->group_ranks = s->group;
    comm->grad_compression = s->grad_compression;
    ND_TRY(comm->ops.reduce_to_owners(comm, (nd_comm_split){s->leaves, s->any_order}, mine->pieces,
                                      PIECES));
    for (int p = 0; p < PIECES; p++) {
        const float *result = mine->pieces[p].result;
        const size_t bytes = (size_t)counts[p] * sizeof *result;
        ND_HOLDS((result != NULL) == (mine->pieces[p].owner == comm->rank % s->group));
        if (result && s->rounded && s->group == comm->size)
            memcpy(s->expected[p], result, bytes);
        ND_HOLDS(!result || memcmp(result, s->expected[p], bytes) == 0);
    }
    free(mine);
    return ND_OK;
}

/* The tree's sum of leaves a..b-1, as the contract says it is formed; `host` leaves first. */
static float tree_sum(int64_t a, int64_t b, int64_t host, int64_t i)
{
    if (b - a == 1)
        return summand(a, i);
    const int64_t unit = b - a > host ? host : 1,
                  middle = a + unit * nd_sum_tree_left((b - a) / unit);
    return tree_sum(a, middle, host, i) + tree_sum(middle, b, host, i);
}

static sums sums_by_host(int64_t leaves, int64_t host, int group)
{
    sums s = {.leaves = leaves, .any_order = host > 1, .group = group};
    for (int p = 0; p < PIECES; p++)
        for (int64_t i = 0; i < counts[p]; i++)
            s.expected[p][i] = tree_sum(0, leaves, host, i + p);
    return s;
}

static sums sums_of(int64_t leaves, int group)
{
    return sums_by_host(leaves, 1, group);
}

Test(simulation, sums_have_the_bits_of_one_rank_on_1_to_1024_ranks)
{
    static const int64_t parts[] = {1, 2, 3, 5};
    for (int i = 0; i < SIZES; i++)
        for (size_t p = 0; p < sizeof parts / sizeof *parts; p++) {
            const nd_simulated_machine machine = machine_of(sizes[i]);
            sums s = sums_of(parts[p] * machine.ranks, machine.ranks);
            run(&machine, check_sums, &s, NULL);
        }
}

/* Ranks, and those of a group: all that divide, up to 64; a rank, half a host, some
 * hosts beyond. */
static const int groupings[][2] = {{2, 1},    {3, 1},    {8, 1},     {8, 2},      {8, 4},
                                   {24, 8},   {24, 3},   {64, 1},    {64, 4},     {64, 8},
                                   {64, 16},  {64, 32},  {40, 8},    {48, 8},     {1024, 1},
                                   {1024, 4}, {1024, 8}, {1024, 64}, {1024, 256}, {1024, 512}};
enum { GROUPINGS = sizeof groupings / sizeof *groupings };

Test(simulation, sums_have_the_same_bits_on_the_owners_of_all_groups)
{
    static const int64_t parts[] = {1, 2, 3};
    for (int i = 0; i < GROUPINGS; i++)
        for (size_t p = 0; p < sizeof parts / sizeof *parts; p++) {
            nd_simulated_machine machine = machine_of(groupings[i][0]);
            sums s = sums_of(parts[p] * machine.ranks, groupings[i][1]);
            machine.delay = p > 0 ? 1e-3 : 0.0; /* at random */
            machine.seed = p;
            run(&machine, check_sums, &s, NULL);
        }
}

Test(simulation, random_delays_neither_stop_ranks_nor_change_bits)
{
    for (int i = 0; i < SIZES; i++)
        for (uint64_t seed = 1; seed <= 3; seed++) {
            nd_simulated_machine machine = machine_of(sizes[i]);
            sums s = sums_of(3 * (int64_t)machine.ranks, machine.ranks);
            machine.delay = 1e-3;
            machine.seed = seed;
            run(&machine, check_sums, &s, NULL);
            s.group = machine.ranks > 8 ? 8 : 1;
            run(&machine, check_sums, &s, NULL);
        }
}

typedef struct walker {
    const nd_simulated_machine *machine;
    int rank;
    double length, *sent, *received; /* of a part; of each host */
} walker;

static nd_status count_crossing(void *context, const nd_tree_act *act)
{
    const walker *c = context;
    const int hosts = c->machine->hosts, ranks = c->machine->ranks;
    const int from = c->rank * hosts / ranks, to = act->peer * hosts / ranks;
    if (act->kind == ND_TREE_SEND && from != to) {
        c->sent[from] += c->length;
        c->received[to] += c->length;
    }
    return ND_OK;
}

static void predict_bytes(const nd_simulated_machine *m, int group, double *sent, double *received)
{
    double before = 0.0;
    for (int part = 0; part < 4; part++)
        for (int p = 0; p < PIECES; p++) {
            const int64_t bytes = 4 * counts[p] - part * PART_BYTES;
            const double length = bytes < PART_BYTES ? (double)bytes : PART_BYTES;
            for (int r = 0; bytes > 0 && r < m->ranks; r++) {
                walker c = {m, r, length, sent, received};
                int slot;
                const nd_tree tree = {.ranks = m->ranks,
                                      .group = group,
                                      .split = {.leaves = m->ranks},
                                      .owner = owner_of(p, group),
                                      .taker = owner_of(p, m->ranks),
                                      .turn = (int64_t)((before + length / 2) / PART_BYTES)};
                ND_ASSERT_OK(nd_tree_walk(r, &tree, count_crossing, &c, &slot));
            }
            before += bytes > 0 ? length : 0.0;
        }
}

/* Bytes of a sum of all pieces; and those that leave any host. */
static double sum_bytes(void)
{
    double bytes = 0.0;
    for (int p = 0; p < PIECES; p++)
        bytes += (double)counts[p] * 4.0;
    return bytes;
}

static double bytes_between_hosts(const nd_simulated_machine *m, sums *s)
{
    double sent[128], all = 0.0;
    nd_simulated_costs costs = {.sent = sent};
    run(m, check_sums, s, &costs);
    for (int h = 0; h < m->hosts; h++)
        all += sent[h];
    return all;
}

/* Every part crosses hosts - 1 times, since hosts are subtrees, and at most once more on its way to
 * its owner; then to each further host that has an owner. */
static void check_bytes(int ranks, int group)
{
    const nd_simulated_machine m = machine_of(ranks);
    double sent[128], received[128], planned_sent[128] = {0}, planned_received[128] = {0};
    double all = 0.0;
    const double bytes = sum_bytes();
    const int copies = ranks / group,
              crossings = m.hosts - 1 + (copies < m.hosts ? copies : m.hosts) - 1;
    nd_simulated_costs costs = {.sent = sent, .received = received};
    sums s = sums_of(m.ranks, group);
    run(&m, check_sums, &s, &costs);
    predict_bytes(&m, group, planned_sent, planned_received);
    for (int h = 0; h < m.hosts; h++) {
        cr_assert_eq(sent[h], planned_sent[h], "host %d of %d", h, m.hosts);
        cr_assert_eq(received[h], planned_received[h], "host %d of %d", h, m.hosts);
        all += sent[h];
    }
    if (group % 8 != 0 && 8 % group != 0)
        return; /* some are on two hosts */
    cr_assert(all >= crossings * bytes && all <= (crossings + (m.hosts > 1)) * bytes,
              "%d ranks in %ds: %g bytes between hosts, %d crossings of %g", ranks, group, all,
              crossings, bytes);
}

Test(simulation, bytes_over_each_link_are_those_predicted)
{
    for (int i = 0; i < SIZES; i++)
        check_bytes(sizes[i], sizes[i]);
    for (int i = 0; i < GROUPINGS; i++)
        check_bytes(groupings[i][0], groupings[i][1]);
}

/* One sum a host, however many ranks it has, and at most once more on its way to its owner; each
 * owner on another host costs one, too. */
Test(simulation, one_sum_leaves_a_host_of_any_number_of_ranks_where_any_order_is_allowed)
{
    static const int jobs[][3] = {{3, 2, 6},   {3, 3, 9},   {5, 3, 15},  {6, 2, 12}, {6, 4, 24},
                                  {7, 5, 35},  {12, 3, 36}, {24, 4, 96}, {6, 4, 6},  {12, 3, 12},
                                  {12, 4, 24}, {1, 7, 7},   {8, 4, 32}};
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
        const int each = jobs[i][0], hosts = jobs[i][1], group = jobs[i][2], ranks = each * hosts;
        const int crossings = hosts - 1 + ranks / group - 1;
        nd_simulated_machine m = machine_of(ranks);
        sums s = sums_by_host(ranks, each, group);
        s.any_order = true;
        m.hosts = hosts;
        const double bytes = sum_bytes(), all = bytes_between_hosts(&m, &s);
        cr_assert(all >= crossings * bytes && all <= (crossings + 1) * bytes,
                  "%d hosts of %d: %g bytes between them, %d crossings of %g", hosts, each, all,
                  crossings, bytes);
    }
}

/* What is rounded on its way has the bits of one group, also where finished sums are compressed on
 * the way to other owners. */
Test(simulation, rounded_sums_have_the_bits_of_one_group)
{
    static const nd_gradient_wire formats[] = {ND_GRADIENT_WIRE_BF16, ND_GRADIENT_WIRE_INT8};
    for (int f = 0; f < 2; f++)
        for (int i = 0; i < GROUPINGS; i++) {
            const nd_simulated_machine machine = machine_of(groupings[i][0]);
            sums s = sums_of(machine.ranks, machine.ranks);
            const float exact = s.expected[0][5]; /* no power of two */
            s.format = formats[f];
            s.rounded = true;
            run(&machine, check_sums, &s, NULL);
            cr_assert_neq(exact, s.expected[0][5], "nothing was rounded");
            s.group = groupings[i][1];
            run(&machine, check_sums, &s, NULL);
            s.grad_compression = ND_GRAD_COMPRESSION_ON;
            run(&machine, check_sums, &s, NULL);
        }
}

static double crossing(const nd_simulated_machine *m, nd_grad_compression choice)
{
    sums s = sums_of(3 * (int64_t)m->ranks, m->ranks);
    s.grad_compression = choice;
    return bytes_between_hosts(m, &s);
}

Test(simulation, compressed_sums_have_the_same_bits_and_take_fewer_bytes_between_hosts)
{
    for (int i = 0; i < SIZES; i++) {
        nd_simulated_machine m = machine_of(sizes[i]);
        m.hosts = m.ranks < 8 ? m.ranks : m.hosts;
        const double whole = crossing(&m, ND_GRAD_COMPRESSION_OFF),
                     shorter = crossing(&m, ND_GRAD_COMPRESSION_ON);
        cr_assert_leq(shorter, 0.92 * whole, "%d ranks: %g of %g bytes", m.ranks, shorter, whole);
        m.hosts = 1;
        cr_assert_eq(crossing(&m, ND_GRAD_COMPRESSION_ON), 0.0);
    }
}
