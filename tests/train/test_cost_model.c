/* The predicted time of a step, beside times worked out by hand and bytes that runs sent. */
#include "support/run_files.h"
#include "support/support.h"
#include "train/plan/plan_cost.h"
#include "train/plan/simulated_step.h"
#include "train/step.h"

#include <stdio.h>
#include <string.h>

/* alpha 1 s, beta 1 ms a byte, gamma 0.5 ms a byte; links within a host are ten times as fast. */
static nd_cost_machine machine_of(int ranks, int hosts)
{
    return (nd_cost_machine){.ranks = ranks,
                             .hosts = hosts,
                             .between = {1.0, 1e-3},
                             .within = {0.1, 1e-4},
                             .add_per_byte = 5e-4,
                             .part_bytes = 1e6,
                             .ring_bytes = 1e9};
}

static nd_cost predict(const nd_cost_machine *machine, const nd_cost_work *work)
{
    nd_cost cost;
    ND_ASSERT_OK(nd_cost_predict(machine, work, &cost));
    return cost;
}

static void near(double value, double expected, const char *what)
{
    cr_assert_float_eq(value, expected, 1e-9, "%s: %.12g, by hand %.12g", what, value, expected);
}

Test(cost_model, one_rank_computes_and_updates_and_sends_nothing)
{
    const nd_cost_machine machine = machine_of(1, 1);
    const nd_cost_piece pieces[] = {{1000, 4, 10, 0, 0, 0, 0}, {500, 3, 10, 0, 0, 0, 0}};
    const nd_cost_part part = {10, pieces, 2, 16, 0};
    const double codes[] = {700};
    const nd_cost_work work = {
        .leaves = 1, .parts = &part, .count = 1, .codes = codes, .losses = 24, .report = 32};
    const nd_cost cost = predict(&machine, &work);
    near(cost.step, 17, "step");
    near(cost.updated, 7, "updates");
    near(cost.busy, 0, "in messages");
    near(cost.bytes, 0, "bytes");
}

/* 0 sends 1000 bytes in one part: 1 + 1000 (1 + 0.5) ms = 2.5 s, of which it is held for 1; 1
 * updates for 4 s; 500 bytes of codes back: 1.5 s. */
Test(cost_model, two_ranks_send_a_gradient_and_codes_one_after_another)
{
    const nd_cost_machine machine = machine_of(2, 2);
    const nd_cost_piece piece = {1000, 4, 10, 1, 1, 0, 0};
    const nd_cost_part part = {10, &piece, 1, 0, 0};
    const double codes[] = {0, 500};
    const nd_cost_work work = {.leaves = 2, .parts = &part, .count = 1, .codes = codes};
    const nd_cost cost = predict(&machine, &work);
    near(cost.passes, 10, "passes");
    near(cost.reduced, 2.5, "reduction");
    near(cost.updated, 4, "update");
    near(cost.codes, 1.5, "codes");
    near(cost.step, 18, "step");
    near(cost.busy, 3, "in messages");
    near(cost.bytes, 1500, "bytes");
    near(cost.least_updates, 0, "the other's update");
}

/* 1 -> 0 and 3 -> 2 at once, then 2 -> 0: ceil(log2 4) = 2 hops of 2.5 s. Streams of changed codes
 * go 0 -> 2, then 0 -> 1 and 2 -> 3: two hops of 1.5 s. */
Test(cost_model, a_reduction_and_a_broadcast_take_as_many_hops_as_ranks_have_doublings)
{
    const nd_cost_piece piece = {1000, 0, 0, 0, 0, 0, 0};
    const nd_cost_part part = {0, &piece, 1, 0, 0};
    const double none[8] = {0}, codes[8] = {500};
    const nd_cost_machine four = machine_of(4, 4), eight = machine_of(8, 8);
    const nd_cost_work work4 = {
        .leaves = 4, .parts = &part, .count = 1, .codes = none, .streams = codes};
    const nd_cost_work work8 = {
        .leaves = 8, .parts = &part, .count = 1, .codes = none, .streams = codes};
    const nd_cost cost4 = predict(&four, &work4), cost8 = predict(&eight, &work8);
    near(cost4.reduced, 5, "reduction over 4");
    near(cost4.codes, 3, "codes to 4");
    near(cost8.reduced, 7.5, "reduction over 8");
    near(cost8.codes, 4.5, "codes to 8");
    near(cost8.bytes, 7 * 1500, "bytes of 8");
}

/* One owner's 500 bytes take three hops of 1.5 s. Where each of four has as many, they take no
 * longer, and go both into and out of every rank at once. */
Test(cost_model, codes_go_round_a_ring)
{
    const nd_cost_part none = {0, NULL, 0, 0, 0};
    const double one[4] = {500}, each[4] = {500, 500, 500, 500};
    const nd_cost_machine machine = machine_of(4, 4);
    const nd_cost_work from_one = {.leaves = 4, .parts = &none, .count = 1, .codes = one};
    const nd_cost_work from_each = {.leaves = 4, .parts = &none, .count = 1, .codes = each};
    near(predict(&machine, &from_one).codes, 4.5, "of one");
    near(predict(&machine, &from_each).codes, 4.5, "of each");
    near(predict(&machine, &from_each).bytes, 4 * 3 * 500, "bytes");
}

/* Three ranks split as 2 + 1. 1 -> 0 is there at 2 s and added at 2.5; 2 -> 0 has the link in from
 * 1 s on, is there at 3 and added at 3.5. */
Test(cost_model, a_rank_receives_the_next_sum_while_it_adds_one)
{
    const nd_cost_piece piece = {1000, 0, 0, 0, 0, 0, 0};
    const nd_cost_part part = {0, &piece, 1, 0, 0};
    const double codes[3] = {0};
    const nd_cost_machine machine = machine_of(3, 3);
    const nd_cost_work work = {.leaves = 3, .parts = &part, .count = 1, .codes = codes};
    near(predict(&machine, &work).reduced, 3.5, "reduction");
}

/* 500 bytes of codes take 1.5 s. Those of the first tensor hide behind the update of the second, or
 * outlast it by 1 s. */
Test(cost_model, weights_are_sent_while_others_are_updated)
{
    const nd_cost_machine machine = machine_of(2, 2);
    nd_cost_piece pieces[] = {{1000, 2, 0, 0, 0, 0, 0}, {1000, 4, 0, 0, 0, 0, 1}};
    const nd_cost_part part = {0, pieces, 2, 0, 1};
    const double codes[] = {500, 0, 500, 0};
    const nd_cost_work work = {
        .leaves = 2, .parts = &part, .count = 1, .codes = codes, .exchanges_ahead = 1};
    nd_cost cost = predict(&machine, &work);
    near(cost.updated, 6, "updates");
    near(cost.codes, 1.5, "codes");
    near(cost.step, cost.reduced + 7.5, "step");
    pieces[1].update = 0.5;
    cost = predict(&machine, &work);
    near(cost.updated, 2.5, "updates");
    near(cost.codes, 2.5, "codes");
    near(cost.step, cost.reduced + 5, "step");
}

/* Two pieces of two owners: each rank sends one and receives one at the same time. */
Test(cost_model, both_directions_of_a_link_are_in_use_at_once)
{
    const nd_cost_piece pieces[] = {{1000, 0, 0, 0, 0, 0, 0}, {1000, 0, 0, 1, 1, 0, 0}};
    const nd_cost_part one = {0, pieces, 1, 0, 0}, two = {0, pieces, 2, 0, 0};
    const double codes[2] = {0};
    const nd_cost_machine machine = machine_of(2, 2);
    const nd_cost_work work1 = {.leaves = 2, .parts = &one, .count = 1, .codes = codes};
    const nd_cost_work work2 = {.leaves = 2, .parts = &two, .count = 1, .codes = codes};
    near(predict(&machine, &work1).reduced, 2.5, "one");
    near(predict(&machine, &work2).reduced, 2.5, "two");
}

/* Adding 250 bytes hides behind the next ones' way, but for the last: 1 + 1 + 0.125 s. Around a
 * ring of eight the first part is there after seven hops of 1.25 s, three more 0.25 s apart; down a
 * tree the root sends three copies of 1000 bytes, 1 s each; the last part of the longest way is
 * sent after 2.5 s, handed on at 2.75 and 3, each 1 s later. */
Test(cost_model, long_messages_move_in_parts)
{
    const nd_cost_piece piece = {1000, 0, 0, 0, 0, 0, 0};
    const nd_cost_part part = {0, &piece, 1, 0, 0};
    const double nothing[8] = {0}, codes[8] = {1000};
    nd_cost_machine two = machine_of(2, 2), eight = machine_of(8, 8);
    two.part_bytes = eight.part_bytes = 250;
    const nd_cost_part none = {0, NULL, 0, 0, 0};
    const nd_cost_work reduction = {.leaves = 2, .parts = &part, .count = 1, .codes = nothing};
    const nd_cost_work ring = {.leaves = 8, .parts = &none, .count = 1, .codes = codes};
    const nd_cost_work tree = {
        .leaves = 8, .parts = &none, .count = 1, .codes = nothing, .streams = codes};
    near(predict(&two, &reduction).reduced, 2.125, "reduction");
    near(predict(&eight, &ring).codes, 9.5, "ring");
    near(predict(&eight, &tree).codes, 6, "tree");
}

/* Three rounds of 1 + 0.1 s, where doublings took two of 1 + 0.1 and 1 + 0.2 s. */
Test(cost_model, a_long_allgather_goes_round_a_ring)
{
    nd_cost_machine machine = machine_of(4, 4);
    const double codes[4] = {0};
    const nd_cost_part part = {0, NULL, 0, 100, 0};
    const nd_cost_work work = {.leaves = 4, .parts = &part, .count = 1, .codes = codes};
    near(predict(&machine, &work).step, 2.3, "doublings");
    machine.ring_bytes = 100;
    near(predict(&machine, &work).step, 3.3, "ring");
}

/* Ranks meet in the nodes (4,8), (0,8), (8,16), (16,20), (16,24) and (0,24) of 24 leaves, 6
 * a rank. */
Test(cost_model, parts_that_are_several_blocks_are_sent_block_by_block)
{
    const nd_cost_piece piece = {1000, 0, 0, 0, 0, 0, 0};
    const nd_cost_part part = {0, &piece, 1, 0, 0};
    const double codes[4] = {0};
    const nd_cost_machine machine = machine_of(4, 4);
    const nd_cost_work whole = {.leaves = 4, .parts = &part, .count = 1, .codes = codes},
                       split = {.leaves = 24, .parts = &part, .count = 1, .codes = codes};
    near(predict(&machine, &whole).bytes, 3000, "one block a rank");
    near(predict(&machine, &split).bytes, 6000, "two blocks a rank");
}

/* Round 1: one rank of each host sends 100 bytes over the link: 1.1 s; round 2: both send 200: 1.4
 * s. */
Test(cost_model, ranks_of_a_host_share_its_link)
{
    const nd_cost_machine machine = machine_of(4, 2);
    const nd_cost_part part = {0, NULL, 0, 100, 0};
    const double codes[4] = {0};
    const nd_cost_work work = {.leaves = 4, .parts = &part, .count = 1, .codes = codes};
    near(predict(&machine, &work).step, 2.5, "allgather");
    /* 1 -> 0 within a host: 0.1 + 1000 (0.1 + 0.5) ms = 0.7 s, 3 -> 2 alike; then 2 -> 0: 2.5 s */
    const nd_cost_piece piece = {1000, 0, 0, 0, 0, 0, 0};
    const nd_cost_part reduced = {0, &piece, 1, 0, 0};
    const nd_cost_work work2 = {.leaves = 4, .parts = &reduced, .count = 1, .codes = codes};
    near(predict(&machine, &work2).step, 3.2, "reduction");
}

/* Ready at 6 of 10 s: 2.5 s are hidden; of 7.5 s (5000 bytes, 1 + 7.5 s) 4.5 s stick out. */
Test(cost_model, a_reduction_within_the_backward_pass_is_exposed_only_where_it_outlasts_it)
{
    const nd_cost_machine machine = machine_of(2, 2);
    const double codes[2] = {0};
    nd_cost_piece piece = {1000, 0, 6, 0, 0, 0, 0};
    const nd_cost_part part = {10, &piece, 1, 0, 0};
    const nd_cost_work work = {.leaves = 2, .parts = &part, .count = 1, .codes = codes};
    near(predict(&machine, &work).reduced, 0, "hidden");
    piece.bytes = 5000;
    near(predict(&machine, &work).reduced, 4.5, "exposed");
    piece.ready = 10;
    near(predict(&machine, &work).reduced, 8.5, "after the passes");
}

/* 1000 bytes, all of them on their way before second 10, take 1 ms each from either
 * rank's passes. */
Test(cost_model, a_message_beside_the_backward_pass_slows_it_down)
{
    nd_cost_machine machine = machine_of(2, 2);
    machine.core_per_byte = 1e-3;
    const double codes[2] = {0};
    nd_cost_piece piece = {1000, 0, 6, 0, 0, 0, 0};
    const nd_cost_part part = {10, &piece, 1, 0, 0};
    const nd_cost_work work = {.leaves = 2, .parts = &part, .count = 1, .codes = codes};
    near(predict(&machine, &work).step, 11, "beside");
    piece.ready = 10;
    near(predict(&machine, &work).step, 12.5, "after");
}

/* Each part waits for its owner: 3 + 5 s in sequence, where one part has 5 s. */
Test(cost_model, updates_during_the_backward_pass_wait_for_each_owner_in_turn)
{
    const nd_cost_machine machine = machine_of(2, 2);
    const double codes[2] = {0};
    const nd_cost_piece pieces[] = {{1000, 3, 5, 0, 0, 0, 0}, {1000, 5, 5, 1, 1, 0, 0}};
    const nd_cost_part parts[] = {{5, &pieces[0], 1, 10, 0}, {5, &pieces[1], 1, 10, 0}};
    const nd_cost_part together = {10, pieces, 2, 20, 0};
    const nd_cost_work layers = {.leaves = 2, .parts = parts, .count = 2, .codes = codes},
                       whole = {.leaves = 2, .parts = &together, .count = 1, .codes = codes};
    near(predict(&machine, &layers).updated, 8, "layer by layer");
    near(predict(&machine, &whole).updated, 5, "together");
    /* 5 + 2.5 + 1.01 norms; rank 0 updates 3, rank 1 goes on: 5 + 2.5 (0 is ready for its message
     * at 8.51 + 3 + 5) + 1.01, + 5 */
    near(predict(&machine, &layers).step, 8.51 + 3 + 5 + 2.5 + 1.01 + 5, "step");
}

/* The first is reduced within the passes of the second, to 5 + 5; 1.01 norms; the second is reduced
 * in 2.5 s while 0 updates the first in 3; 1.01 norms; 1 updates the second. */
Test(cost_model, with_overlap_a_part_is_reduced_beside_the_passes_of_the_next)
{
    const nd_cost_machine machine = machine_of(2, 2);
    const double codes[2] = {0};
    const nd_cost_piece pieces[] = {{1000, 3, 5, 0, 0, 0, 0}, {1000, 5, 5, 1, 1, 0, 0}};
    const nd_cost_part parts[] = {{5, &pieces[0], 1, 10, 0}, {5, &pieces[1], 1, 10, 0}};
    const nd_cost_work work = {
        .leaves = 2, .parts = parts, .count = 2, .codes = codes, .ahead = true};
    const nd_cost cost = predict(&machine, &work);
    near(cost.passes, 10, "passes");
    near(cost.reduced, 2.02, "reductions");
    near(cost.updated, 8, "updates");
    near(cost.step, 10 + 1.01 + 3 + 1.01 + 5, "step");
    near(cost.sent[0], 1000 + 2 * 10, "over the link of host 0");
    near(cost.received[0], 1000 + 2 * 10, "and back");
}

Test(cost_model, refuses_ranks_that_cannot_share_the_sum)
{
    const nd_cost_machine machine = machine_of(3, 3);
    const double codes[3] = {0};
    const nd_cost_work work = {.leaves = 4, .codes = codes};
    nd_cost cost;
    cr_assert_neq(nd_cost_predict(&machine, &work, &cost), ND_OK);
}

enum { PIECES = 60, PARTS = 6, EXCHANGES = 3 };

/* When pieces are reduced: after all passes; beside them, layer by layer; after those of their
 * layer, which is updated then; beside those of the next layer. */
typedef enum schedule { AFTER, BESIDE, LAYERS, AHEAD } schedule;

/* Of layers, some whose passes take longer than their reduction and some that do not. */
static void fill_parts(schedule how, nd_cost_piece *pieces, nd_cost_part parts[PARTS])
{
    enum { EACH = PIECES / PARTS };
    double passes = 0.0;
    for (int p = 0; p < PARTS; p++) {
        const double own = p % 2 == 0 ? 2e-3 : 2e-5;
        passes += own;
        for (int i = p * EACH; i < (p + 1) * EACH; i++) {
            pieces[i].ready = how >= LAYERS ? own : passes;
            pieces[i].reduction = how == BESIDE ? p : 0;
        }
        parts[p] = (nd_cost_part){own, pieces + p * EACH, EACH, 8.0 * EACH,
                                  (p + 1) * EACH * EXCHANGES / PIECES};
    }
    for (int i = 0; how == AFTER && i < PIECES; i++)
        pieces[i].ready = passes;
    if (how < LAYERS)
        parts[0] = (nd_cost_part){passes, pieces, PIECES, 8.0 * PIECES, EXCHANGES};
    for (int p = 0; p < PARTS; p++) /* one follows the last update */
        parts[p].exchanges = how == AFTER                     ? 0
                             : parts[p].exchanges < EXCHANGES ? parts[p].exchanges
                                                              : EXCHANGES - 1;
}

/* Pieces and codes of `ranks` owners, of all lengths. */
static void compare_with_simulation(int ranks, int group, nd_gradient_wire format, schedule how)
{
    const nd_cost_machine machine = {.ranks = ranks,
                                     .hosts = (ranks + 7) / 8,
                                     .between = {5e-6, 2e-11},
                                     .within = {2e-6, 2e-12},
                                     .compressed = how == AFTER ? 0.0 : 0.5,
                                     .add_per_byte = 1e-12,
                                     .part_bytes = 16384,
                                     .ring_bytes = 32768};
    nd_cost_piece pieces[PIECES];
    nd_cost_part parts[PARTS];
    double codes[EXCHANGES * group], streams[group];
    memset(codes, 0, sizeof codes);
    memset(streams, 0, sizeof streams);
    for (int i = 0; i < PIECES; i++) {
        pieces[i] = (nd_cost_piece){
            4096.0 * (1 + i * i % 97), 1e-5 * (i % 7), 0.0, i * 37 % group, i * 37 % ranks, 0, 0};
        pieces[i].exchange = how == AFTER ? 0 : i * EXCHANGES / PIECES;
        codes[pieces[i].exchange * group + pieces[i].owner] += pieces[i].bytes / 4;
        streams[pieces[i].owner] += i < 5 ? 1e4 : 0.0;
    }
    fill_parts(how, pieces, parts);
    const nd_cost_work work = {
        2 * ranks, parts,        how < LAYERS ? 1 : PARTS,         codes, streams, 48, 32, format,
        group,     how == AHEAD, how == AFTER ? 0 : EXCHANGES - 1, false};
    nd_cost simulated;
    const nd_cost predicted = predict(&machine, &work);
    ND_ASSERT_OK(nd_simulated_step(&machine, &work, &simulated));
    cr_assert_float_eq(predicted.step / simulated.step, 1.0, 0.05,
                       "%d ranks in %ds, schedule %d: predicted %g (%g, %g, %g), simulated %g (%g, "
                       "%g, %g)",
                       ranks, group, how, predicted.step, predicted.reduced, predicted.updated,
                       predicted.codes, simulated.step, simulated.reduced, simulated.updated,
                       simulated.codes);
    cr_assert_float_eq(predicted.bytes, simulated.bytes, 1.0,
                       "%d ranks in %ds: predicted %.0f, sent %.0f", ranks, group, predicted.bytes,
                       simulated.bytes);
    for (int h = 0; h < machine.hosts; h++) {
        cr_assert_float_eq(predicted.sent[h], simulated.sent[h], 1.0);
        cr_assert_float_eq(predicted.received[h], simulated.received[h], 1.0);
    }
}

Test(cost_model, predicts_what_the_real_collectives_take_on_simulated_links)
{
    static const int sizes[] = {1, 2, 3, 8, 24, 64};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        compare_with_simulation(sizes[i], sizes[i], ND_GRADIENT_WIRE_FP32, AFTER);
    compare_with_simulation(64, 64, ND_GRADIENT_WIRE_BF16, AFTER);
}

Test(cost_model, predicts_groups_of_ranks_as_well)
{
    static const int sizes[][2] = {{2, 1}, {3, 1}, {8, 1}, {8, 4}, {24, 8}, {64, 8}, {64, 32}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        compare_with_simulation(sizes[i][0], sizes[i][1], ND_GRADIENT_WIRE_FP32, AFTER);
    compare_with_simulation(64, 8, ND_GRADIENT_WIRE_BF16, AFTER);
    compare_with_simulation(64, 8, ND_GRADIENT_WIRE_INT8, AFTER);
}

Test(cost_model, predicts_reductions_and_updates_within_the_backward_pass)
{
    static const int sizes[][2] = {{1, 1}, {2, 2},  {3, 3},   {8, 8},
                                   {8, 4}, {24, 8}, {64, 64}, {64, 8}};
    for (schedule how = BESIDE; how <= AHEAD; how++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            compare_with_simulation(sizes[i][0], sizes[i][1], ND_GRADIENT_WIRE_FP32, how);
}

TestSuite(plan_cost, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

static nd_plan_machine slow_machine(int hosts)
{
    return (nd_plan_machine){.between = {50e-6, 8e-9},
                             .within = {2e-6, 1e-9},
                             .add_per_byte = 1e-9,
                             .hosts = hosts,
                             .flops = 1e9};
}

static void configure(nd_config *config, const char *set)
{
    nd_config_defaults(config);
    ND_ASSERT_OK(nd_config_read_file(config, nd_test_here.config));
    ND_ASSERT_OK(nd_config_set(config, set, "test"));
}

static nd_plan_cost predict_run(int ranks, const char *set)
{
    static nd_config config;
    const nd_plan_machine machine = slow_machine(ranks);
    nd_plan_cost cost;
    configure(&config, set);
    ND_ASSERT_OK(nd_plan_cost_predict(&config, ranks, &machine, &cost));
    return cost;
}

/* The prediction counts what ranks tell each other at the end of a step too, which a run's metrics
 * do not. */
static void check_bytes(int ranks, const char *set)
{
    char run[128], extra[160];
    double bytes[ND_TEST_STEPS_MAX];
    snprintf(run, sizeof run, "%s/run%d", nd_test_here.directory, ranks);
    snprintf(extra, sizeof extra, "--resume none --set %s", set);
    nd_test_train(ranks, 0, nd_test_here.config, run, extra);
    const int steps = nd_test_metric(run, "comm_bytes", bytes);
    const double reports = ND_STEP_REPORT_BYTES * ranks * (ranks - 1);
    const double predicted = predict_run(ranks, set).cost.bytes - reports;
    cr_assert_eq(bytes[steps - 1], predicted, "%d ranks, %s: sent %.0f, predicted %.0f", ranks, set,
                 bytes[steps - 1], predicted);
}

Test(plan_cost, sends_the_bytes_that_runs_send)
{
    check_bytes(2, "training.batch_size=8");
    check_bytes(4, "training.batch_size=8");
    check_bytes(8, "training.batch_size=16");
    check_bytes(8, "training.grad_clip=0"); /* layer by layer */
    check_bytes(4, "dist.deterministic=off");
}

Test(plan_cost, more_ranks_take_less_time_until_messages_outweigh_what_they_save)
{
    const double two = predict_run(2, "training.batch_size=8").cost.step;
    const double four = predict_run(4, "training.batch_size=8").cost.step;
    cr_assert_lt(four, two);
    const nd_plan_cost alone = predict_run(1, "training.batch_size=8");
    cr_assert_float_eq(nd_plan_cost_strong(&alone), 1.0, 1e-9);
    cr_assert_float_eq(nd_plan_cost_weak(&alone), 1.0, 1e-9);
    const nd_plan_cost shared = predict_run(4, "training.batch_size=8");
    cr_assert_lt(nd_plan_cost_strong(&shared), 1.0);
}

Test(plan_cost, plan_tells_the_time_of_a_step_and_refuses_half_a_machine)
{
    char output[8192];
    int code =
        nd_test_shell(output, sizeof output,
                      "%s plan --config %s --ranks 2 --bandwidth 1 --step-ms 100 --optimizer-ms 20",
                      ND_BINARY, nd_test_here.config);
    cr_assert_eq(code, 0, "%s", output);
    cr_assert(strstr(output, "forward and backward              40 ms") != NULL, "%s", output);
    cr_assert(strstr(output, "alone                            100 ms") != NULL, "%s", output);
    code = nd_test_shell(output, sizeof output,
                         "%s plan --config %s --ranks 2 --bandwidth 1 --flops measured", ND_BINARY,
                         nd_test_here.config);
    cr_assert_eq(code, 0, "%s", output);
    code = nd_test_shell(output, sizeof output, "%s plan --config %s --ranks 2 --bandwidth 1",
                         ND_BINARY, nd_test_here.config);
    cr_assert_eq(code, 2, "%s", output);
    cr_assert(strstr(output, "either --flops or --step-ms") != NULL, "%s", output);
}

/* As the 7B model is trained, in small: projected gradients, updates within the backward pass, on
 * hosts of four. */
Test(plan_cost, the_simulated_step_of_a_streamed_update_takes_what_was_predicted)
{
    static const char *const sets[] = {"dist.overlap_grad_reduce=true",
                                       "dist.overlap_grad_reduce=false", "dist.group_ranks=4",
                                       "dist.grad_comm_dtype=bf16", "training.grad_clip=1"};
    static nd_config config;
    const nd_plan_machine machine = slow_machine(2);
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        nd_plan_cost predicted, simulated;
        configure(&config, "training.grad_clip=0");
        ND_ASSERT_OK(nd_config_set(&config, "training.use_galore=true", "test"));
        ND_ASSERT_OK(nd_config_set(&config, "training.galore_rank=8", "test"));
        ND_ASSERT_OK(nd_config_set(&config, sets[i], "test"));
        ND_ASSERT_OK(nd_plan_cost_predict(&config, 8, &machine, &predicted));
        ND_ASSERT_OK(nd_plan_cost_simulate(&config, 8, &machine, &simulated));
        cr_assert_float_eq(predicted.cost.step / simulated.cost.step, 1.0, 0.05,
                           "%s: predicted %g, simulated %g", sets[i], predicted.cost.step,
                           simulated.cost.step);
    }
}
