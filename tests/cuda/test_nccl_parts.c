/* Reductions and gathers between GPUs as nccl_parts.c and nccl_weights.c enqueue them, over an
 * emulated NCCL; the same sums over messages are what they are compared with. */
#include "emulated_nccl.h"
#include "nccl_parts.h"
#include "nccl_weights.h"
#include "support/support.h"

#include "core/base/sum_tree.h"
#include "dist/reduction/gradient_wire.h"
#include "dist/simulation/simulation.h"

#include <stdlib.h>
#include <string.h>

enum { PIECES = 7, COUNT_MAX = 1003, SLOTS_MAX = 8, STEPS = 2, RANKS_MAX = 64 };
static const int64_t counts[PIECES] = {1003, 3, 256, 515, 64, 1, 777};

/* Parts, and windows of a few of them. */
enum { PART = 256, WINDOW = 1024 };

/* What a rank has after a few steps. */
typedef struct outcome {
    float results[PIECES][COUNT_MAX];
    float residuals[PIECES][2 * COUNT_MAX];
    bool owns[PIECES];
    uint64_t bytes_sent;
} outcome;

typedef struct job {
    int ranks, group, local;
    bool overlap; /* begins all reductions before it waits for the first */
    bool one_by_one;
    bool any_order; /* of the sums: hosts add first */
    int64_t leaves;
    nd_gradient_wire formats[2]; /* of pieces of even and odd numbers */
    size_t window;
    outcome *outcomes; /* [ranks] */
} job;

typedef struct partial {
    float values[PIECES][SLOTS_MAX][COUNT_MAX];
    float *slots[PIECES][SLOTS_MAX];
    nd_comm_piece pieces[PIECES];
} partial;

static float summand(int64_t leaf, int64_t i, int step)
{
    return 1.0f / (float)(1 + leaf * 7 + i % 1013 + 31 * step);
}

/* The tree's sum of leaves a..b-1. */
static float tree_sum(const job *j, int64_t a, int64_t b, int64_t i, int step)
{
    if (b - a == 1)
        return summand(a, i, step);
    const int64_t unit = j->any_order && b - a > j->local ? j->local : 1,
                  middle = a + unit * nd_sum_tree_left((b - a) / unit);
    return tree_sum(j, a, middle, i, step) + tree_sum(j, middle, b, i, step);
}

static int owner_of(int piece, int ranks)
{
    return (int)((int64_t)piece * 7919 % ranks);
}

/* The maximal blocks of a rank's leaves. */
static void fill(partial *mine, const job *j, int rank, int step)
{
    const int64_t part = j->leaves / j->ranks, first = part * rank, end = first + part;
    outcome *out = &j->outcomes[rank];
    for (int p = 0; p < PIECES; p++) {
        int slot = 0;
        for (int64_t at = first, size; at < end; at += size, slot++) {
            for (size = 1; at % (2 * size) == 0 && at + 2 * size <= end;)
                size *= 2;
            for (int64_t i = 0; i < counts[p]; i++)
                mine->values[p][slot][i] = tree_sum(j, at, at + size, i + p, step);
        }
        for (slot = 0; slot < SLOTS_MAX; slot++)
            mine->slots[p][slot] = mine->values[p][slot];
        mine->pieces[p] = (nd_comm_piece){.slots = mine->slots[p],
                                          .count = counts[p],
                                          .owner = owner_of(p, j->group),
                                          .taker = owner_of(p, j->ranks),
                                          .format = j->formats[p % 2],
                                          .residual = out->residuals[p]};
    }
}

typedef nd_status (*reduce)(void *context, nd_comm *comm, nd_comm_split split,
                            nd_comm_piece *pieces, int64_t count);

static nd_status run_steps(const job *j, nd_comm *comm, reduce how,
                           nd_status (*wait)(void *context), void *context)
{
    outcome *out = &j->outcomes[comm->rank];
    partial *all = calloc(STEPS, sizeof *all), *mine = &all[STEPS - 1];
    for (int step = 0; step < STEPS; step++) {
        fill(&all[step], j, comm->rank, step);
        ND_TRY(
            how(context, comm, (nd_comm_split){j->leaves, j->any_order}, all[step].pieces, PIECES));
    }
    ND_TRY(wait ? wait(context) : ND_OK);
    for (int p = 0; p < PIECES; p++) {
        out->owns[p] = mine->pieces[p].result != NULL;
        ND_HOLDS(out->owns[p] == (mine->pieces[p].owner == nd_comm_member(comm)));
        if (out->owns[p])
            memcpy(out->results[p], mine->pieces[p].result, (size_t)counts[p] * sizeof(float));
    }
    out->bytes_sent = comm->bytes_sent;
    free(all);
    return ND_OK;
}

static nd_status by_messages(void *context, nd_comm *comm, nd_comm_split split,
                             nd_comm_piece *pieces, int64_t count)
{
    (void)context;
    return comm->ops.reduce_to_owners(comm, split, pieces, count);
}

static nd_status messages_rank(nd_simulation *simulation, nd_comm *comm, void *context)
{
    const job *j = context;
    (void)simulation;
    comm->part_bytes = PART;
    comm->group_ranks = j->group;
    comm->host_ranks = j->local;
    return run_steps(j, comm, by_messages, NULL, NULL);
}

typedef struct gpu {
    const job *job;
    nd_nccl_parts parts;
} gpu;

static nd_status wait_for_gpu(void *context)
{
    return nd_emulated_nccl_wait(&((gpu *)context)->parts.link);
}

static nd_status by_nccl(void *context, nd_comm *comm, nd_comm_split split, nd_comm_piece *pieces,
                         int64_t count)
{
    gpu *g = context;
    (void)comm;
    ND_TRY(nd_nccl_parts_reduce(&g->parts, split, pieces, count));
    return g->job->overlap ? ND_OK : wait_for_gpu(g);
}

enum { UNTOUCHED = 0x5a };

static nd_status nccl_rank(nd_emulated_nccl *nccl, int rank, void *context)
{
    const job *j = context;
    nd_comm of_rank = {.rank = rank,
                       .size = j->ranks,
                       .group_ranks = j->group,
                       .local_size = j->local,
                       .host_ranks = j->local,
                       .part_bytes = PART};
    nd_comm *comm = &of_rank;
    gpu g = {.job = j,
             .parts = {.comm = comm,
                       .link = nd_emulated_nccl_link(nccl, rank),
                       .part_bytes = PART,
                       .window_bytes = j->window}};
    const size_t bytes = nd_nccl_parts_scratch(g.parts.link.by_host, j->window), more = j->window;
    g.parts.scratch = malloc(bytes + more);
    memset(g.parts.scratch, UNTOUCHED, bytes + more);
    ND_TRY(run_steps(j, comm, by_nccl, wait_for_gpu, &g));
    /* What is received stays in the first half of the windows, what is encoded in the second. */
    const bool exact = j->formats[0] == ND_GRADIENT_WIRE_FP32 && j->formats[0] == j->formats[1];
    for (size_t i = exact ? bytes / 2 : bytes; i < bytes + more; i++)
        ND_HOLDS(g.parts.scratch[i] == UNTOUCHED);
    free(g.parts.scratch);
    nd_nccl_parts_destroy(&g.parts);
    return ND_OK;
}

static void run_nccl(job *j, nd_emulated_counts *done)
{
    nd_error_clear();
    const nd_emulated_machine machine = {j->ranks, j->local, (unsigned)j->leaves, j->one_by_one};
    const nd_status status = nd_emulated_nccl_run(machine, nccl_rank, j, done);
    cr_assert_eq(status, ND_OK, "%d ranks in groups of %d, %d a host, %lld leaves, %s and %s: %s",
                 j->ranks, j->group, j->local, (long long)j->leaves,
                 nd_gradient_wire_name(j->formats[0]), nd_gradient_wire_name(j->formats[1]),
                 nd_error_get()->message);
}

static void compare(job *j, nd_emulated_counts *done)
{
    const nd_simulated_machine machine = {
        .ranks = j->ranks, .hosts = 1, .within = {1e-6, 1e-11}, .between = {1e-6, 1e-11}};
    outcome *messages = calloc((size_t)j->ranks, sizeof *messages);
    outcome *nccl = calloc((size_t)j->ranks, sizeof *nccl);
    j->outcomes = messages;
    ND_ASSERT_OK(nd_simulation_run(&machine, messages_rank, j, NULL));
    j->outcomes = nccl;
    run_nccl(j, done);
    for (int r = 0; r < j->ranks; r++) {
        cr_assert_eq(messages[r].bytes_sent, nccl[r].bytes_sent,
                     "%d ranks in groups of %d, %lld leaves: rank %d sends %llu and %llu bytes",
                     j->ranks, j->group, (long long)j->leaves, r,
                     (unsigned long long)messages[r].bytes_sent,
                     (unsigned long long)nccl[r].bytes_sent);
        for (int p = 0; p < PIECES; p++) {
            const size_t bytes = (size_t)counts[p] * sizeof(float);
            const bool same = memcmp(messages[r].results[p], nccl[r].results[p], bytes) == 0 &&
                              memcmp(messages[r].residuals[p], nccl[r].residuals[p],
                                     sizeof messages[r].residuals[p]) == 0;
            cr_assert(same, "%d ranks in groups of %d, %lld leaves: piece %d on rank %d", j->ranks,
                      j->group, (long long)j->leaves, p, r);
            for (int64_t i = 0;
                 nccl[r].owns[p] && j->formats[p % 2] == ND_GRADIENT_WIRE_FP32 && i < counts[p];
                 i += 101)
                cr_assert_eq(nccl[r].results[p][i], tree_sum(j, 0, j->leaves, i + p, STEPS - 1));
        }
    }
    free(messages);
    free(nccl);
}

static const int groupings[][2] = {{1, 1},  {2, 2},  {2, 1},  {3, 3},   {3, 1},         {4, 4},
                                   {4, 2},  {8, 8},  {8, 4},  {8, 1},   {9, 9},         {12, 4},
                                   {16, 2}, {24, 8}, {32, 8}, {16, 16}, {RANKS_MAX, 32}};
enum { GROUPINGS = sizeof groupings / sizeof *groupings };

static void compare_all(nd_gradient_wire even, nd_gradient_wire odd)
{
    static const int64_t leaves[] = {1, 2, 3, 5};
    for (int g = 0; g < GROUPINGS; g++)
        for (size_t l = 0; l < sizeof leaves / sizeof *leaves; l++) {
            job j = {.ranks = groupings[g][0],
                     .group = groupings[g][1],
                     .leaves = leaves[l] * groupings[g][0],
                     .formats = {even, odd},
                     .window = WINDOW};
            compare(&j, NULL);
        }
}

/* Ranks, those of a group, those of a host. */
static const int hosts[][3] = {{4, 4, 2},   {4, 2, 2},   {6, 6, 3},   {6, 3, 3},
                               {8, 8, 4},   {8, 8, 2},   {8, 2, 4},   {12, 12, 4},
                               {12, 12, 6}, {16, 16, 8}, {16, 4, 8},  {24, 24, 8},
                               {32, 8, 8},  {32, 32, 4}, {15, 15, 5}, {20, 10, 5}};

static void compare_hosts(nd_gradient_wire even, nd_gradient_wire odd, bool overlap,
                          bool one_by_one)
{
    static const int64_t leaves[] = {1, 2, 3, 4};
    for (size_t h = 0; h < sizeof hosts / sizeof *hosts; h++)
        for (size_t l = 0; l < sizeof leaves / sizeof *leaves; l++) {
            job j = {.ranks = hosts[h][0],
                     .group = hosts[h][1],
                     .local = hosts[h][2],
                     .overlap = overlap,
                     .one_by_one = one_by_one,
                     .leaves = leaves[l] * hosts[h][0],
                     .formats = {even, odd},
                     .window = WINDOW / 2};
            compare(&j, NULL);
            j.any_order = true;
            if (leaves[l] == 1)
                compare(&j, NULL);
        }
}

Test(nccl_parts, exact_sums_have_the_bits_and_bytes_of_those_over_messages)
{
    compare_all(ND_GRADIENT_WIRE_FP32, ND_GRADIENT_WIRE_FP32);
}

Test(nccl_parts, rounded_sums_and_residuals_do_too)
{
    compare_all(ND_GRADIENT_WIRE_BF16, ND_GRADIENT_WIRE_BF16);
    compare_all(ND_GRADIENT_WIRE_INT8, ND_GRADIENT_WIRE_FP32);
}

Test(nccl_parts, a_communicator_a_level_gives_the_same)
{
    compare_hosts(ND_GRADIENT_WIRE_FP32, ND_GRADIENT_WIRE_FP32, false, false);
    compare_hosts(ND_GRADIENT_WIRE_BF16, ND_GRADIENT_WIRE_FP32, false, false);
    compare_hosts(ND_GRADIENT_WIRE_INT8, ND_GRADIENT_WIRE_INT8, false, false);
}

Test(nccl_parts, and_so_do_reductions_that_overlap)
{
    compare_hosts(ND_GRADIENT_WIRE_FP32, ND_GRADIENT_WIRE_FP32, true, false);
}

Test(nccl_parts, ranks_do_not_wait_in_a_circle_on_gpus_that_do_one_group_after_another)
{
    compare_hosts(ND_GRADIENT_WIRE_FP32, ND_GRADIENT_WIRE_FP32, true, true);
}

Test(nccl_parts, a_level_that_fits_a_window_is_one_group_both_ways_and_one_launch)
{
    static const int sizes[] = {2, 4, 8, 16};
    for (int s = 0; s < 4; s++) {
        nd_emulated_counts done[16];
        const int ranks = sizes[s];
        const int levels = s + 1, passes = ranks > 8; /* then sums are delivered */
        int both_ways = 0;
        job j = {.ranks = ranks, .group = ranks, .leaves = ranks, .window = 1 << 16};
        compare(&j, done);
        for (int r = 0; r < ranks; r++) {
            both_ways += done[r].both_ways;
            cr_assert_leq(done[r].groups, STEPS * (levels + passes), "%d ranks", ranks);
            cr_assert_leq(done[r].adds, STEPS * levels, "%d ranks", ranks);
            cr_assert_eq(done[r].encodes, 0);
        }
        cr_assert_geq(both_ways, STEPS * ranks, "%d ranks: %d", ranks, both_ways);
    }
}

enum { LONG = 512 * PART / sizeof(float) }; /* 512 parts */

static nd_status reduce_long(nd_emulated_nccl *nccl, int rank, void *context)
{
    nd_comm of_rank = {.rank = rank, .size = 16};
    nd_comm *comm = &of_rank;
    float *values = calloc(LONG, sizeof *values), *const slots[] = {values};
    nd_comm_piece piece = {.slots = slots, .count = LONG, .owner = 5, .taker = 5};
    nd_nccl_parts parts = {.comm = comm,
                           .link = nd_emulated_nccl_link(nccl, rank),
                           .part_bytes = PART,
                           .window_bytes = 8 * PART};
    of_rank.local_size = *(const int *)context;
    parts.scratch = malloc(nd_nccl_parts_scratch(parts.link.by_host, parts.window_bytes));
    for (int i = 0; i < LONG; i++)
        values[i] = (float)rank;
    ND_TRY(nd_nccl_parts_reduce(&parts, (nd_comm_split){.leaves = 16}, &piece, 1));
    ND_TRY(nd_emulated_nccl_wait(&parts.link));
    for (int i = 0; rank == 5 && i < LONG; i++)
        ND_HOLDS(piece.result[i] == 120.0f);
    nd_nccl_parts_destroy(&parts);
    free(parts.scratch);
    free(values);
    return ND_OK;
}

/* Where turns share the sums, 8 parts a rank are 16 parts of all in a window of the first level, 32
 * in the second. */
Test(nccl_parts, windows_are_longer_where_more_ranks_share_them)
{
    nd_emulated_counts done[16];
    int local = 0;
    ND_ASSERT_OK(
        nd_emulated_nccl_run((nd_emulated_machine){.ranks = 16}, reduce_long, &local, done));
    for (int r = 0; r < 16; r++) {
        cr_assert_leq(done[r].groups, 32 + 16 + 8 + 4 + 1, "rank %d: %d", r, done[r].groups);
        cr_assert_leq(done[r].adds, 32 + 16 + 8 + 4, "rank %d: %d", r, done[r].adds);
        cr_assert_leq(done[r].largest, 512, "rank %d: %d", r, done[r].largest);
    }
}

/* Four hosts of four: each batch of 64 parts is 3 groups within a host, of which every rank
 * receives 32 and 16 parts in windows of 8, and then 8 and 4 parts between hosts. */
Test(nccl_parts, a_host_sums_a_batch_while_another_goes_between_hosts)
{
    nd_emulated_counts done[16];
    int local = 4;
    const nd_emulated_machine machine = {.ranks = 16, .local = local};
    ND_ASSERT_OK(nd_emulated_nccl_run(machine, reduce_long, &local, done));
    for (int r = 0; r < 16; r++) {
        cr_assert_eq(done[r].within, 32 + 16, "rank %d: %d", r, done[r].within);
        cr_assert_leq(done[r].groups, done[r].within + 8 + 8 + 8, "rank %d: %d", r, done[r].groups);
        cr_assert_geq(done[r].beside, done[r].groups / 2, "rank %d: %d", r, done[r].beside);
    }
}

typedef struct gather {
    int ranks, group, local;
} gather;

static size_t bytes_of(int rank)
{
    return rank % 5 == 3 ? 0 : (size_t)(17 + 101 * rank % 400);
}

static nd_status gather_rank(nd_emulated_nccl *nccl, int rank, void *context)
{
    const gather *g = context;
    nd_comm of_rank = {
        .rank = rank, .size = g->ranks, .group_ranks = g->group, .local_size = g->local};
    nd_comm *comm = &of_rank;
    const nd_nccl_link link = nd_emulated_nccl_link(nccl, rank);
    const int first = nd_comm_group_first(comm);
    void *buffers[RANKS_MAX];
    size_t bytes[RANKS_MAX];
    for (int m = 0; m < g->group; m++) {
        bytes[m] = bytes_of(first + m);
        buffers[m] = malloc(bytes[m] + 1);
        memset(buffers[m], first + m == rank ? rank + 1 : 0, bytes[m] + 1);
    }
    ND_TRY(nd_nccl_weights_send(&link, comm, buffers, bytes));
    ND_TRY(nd_emulated_nccl_wait(&link));
    for (int m = 0; m < g->group; m++) {
        const char *got = buffers[m];
        for (size_t i = 0; i < bytes[m]; i++)
            ND_HOLDS(got[i] == first + m + 1);
        free(buffers[m]);
    }
    return ND_OK;
}

Test(nccl_weights, all_members_send_to_a_group_in_one_launch_on_a_host_and_in_rings_across)
{
    static const gather gathers[] = {{4, 2, 4}, {8, 4, 8}, {12, 3, 3},
                                     {8, 4, 2}, {9, 3, 1}, {32, 16, 8}};
    for (size_t i = 0; i < sizeof gathers / sizeof *gathers; i++) {
        nd_emulated_counts done[RANKS_MAX];
        gather g = gathers[i];
        const int groups = g.group <= g.local ? 1 : g.group - 1;
        ND_ASSERT_OK(
            nd_emulated_nccl_run((nd_emulated_machine){.ranks = g.ranks}, gather_rank, &g, done));
        for (int r = 0; r < g.ranks; r++)
            cr_assert_leq(done[r].groups, groups, "%d ranks in groups of %d", g.ranks, g.group);
    }
}

typedef enum mistake { BYTES, NUMBER, PARTNER, MEMORY, CIRCLE, LAUNCH, RACE, HOST } mistake;

/* A message that is received, and an addition into it that does not wait for it. */
static nd_status race(const nd_nccl_link *l, float *mine, int rank)
{
    float ones[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    const nd_gradient_part part = {.values = mine, .wire = ones, .count = 4};
    ND_TRY(l->group_start(l->context, ND_NCCL_ALL));
    if (rank == 0)
        ND_TRY(l->receive(l->context, ND_NCCL_ALL, mine, sizeof ones, 1));
    else
        ND_TRY(l->send(l->context, ND_NCCL_ALL, mine, sizeof ones, 0));
    ND_TRY(l->group_end(l->context, ND_NCCL_ALL));
    if (rank == 0)
        ND_TRY(l->add(l->context, ND_NCCL_ALL_ADDS, &part, 1));
    return nd_emulated_nccl_wait(l);
}

static nd_status err(nd_emulated_nccl *nccl, int rank, void *context)
{
    static float memory[2][16];
    char *mine = (char *)memory[rank];
    const nd_nccl_link l = nd_emulated_nccl_link(nccl, rank);
    const mistake m = *(const mistake *)context;
    const int other = 1 - rank;
    const nd_nccl_queue q = m == HOST ? ND_NCCL_HOST : ND_NCCL_ALL;
    if (m == RACE)
        return race(&l, memory[rank], rank);
    ND_TRY(l.group_start(l.context, q));
    if (m == CIRCLE || rank == 0)
        ND_TRY(l.receive(l.context, q, mine, m == BYTES ? 8 : 4, other));
    if (m == CIRCLE) { /* each waits for what the other sends in its next group */
        ND_TRY(l.group_end(l.context, q));
        ND_TRY(l.group_start(l.context, q));
    }
    if (m != PARTNER && (m == CIRCLE || rank == 1))
        ND_TRY(l.send(l.context, q, mine, 4, other));
    if (m == NUMBER && rank == 1)
        ND_TRY(l.send(l.context, q, mine + 4, 4, other));
    if (m == MEMORY && rank == 0)
        ND_TRY(l.receive(l.context, q, mine + 2, 4, other));
    if (m == LAUNCH)
        ND_TRY(l.add(l.context, q, NULL, 0));
    ND_TRY(l.group_end(l.context, q));
    return nd_emulated_nccl_wait(&l);
}

Test(emulated_nccl, fails_and_does_not_hang_where_groups_are_wrong)
{
    static const char *const expected[] = {"other bytes than its send",
                                           "other receives than its partner has sends",
                                           "in no group",
                                           "overlaps its other memory",
                                           "in no group",
                                           "a launch in a group",
                                           "the same memory at once",
                                           "no message of a group"};
    for (int m = BYTES; m <= HOST; m++) {
        const nd_emulated_machine machine = {.ranks = 2, .local = 1, .seed = 3};
        mistake made = (mistake)m;
        nd_error_clear();
        ND_ASSERT_FAILS(nd_emulated_nccl_run(machine, err, &made, NULL), ND_EPEER, expected[m]);
    }
}
