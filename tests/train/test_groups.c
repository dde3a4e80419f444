/* Groups of ranks: the bits, checkpoints and errors of runs do not depend on [dist] group_ranks. */
#include "train/plan/plan.h"
#include "train/run/run_groups.h"

#include "support/run_files.h"
#include "support/support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { STEPS = 8 };

static char output[16384];

TestSuite(groups, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

static const char *run_of(int ranks, int group)
{
    static char run[128];
    snprintf(run, sizeof run, "%s/run_%d_%d", nd_test_here.directory, ranks, group);
    return run;
}

static void train(int ranks, int group, const char *run, const char *extra)
{
    char arguments[1024];
    snprintf(arguments, sizeof arguments,
             "--total-steps %d --set dist.group_ranks=%d --set dist.replica_check_interval=2 %s",
             STEPS, group, extra);
    nd_test_train(ranks, 0, nd_test_here.config, run, arguments);
}

/* Ranks in groups beside one rank, bit by bit; one that goes on from another grouping too. */
static void compare(const char *extra)
{
    static const int groupings[][2] = {{4, 1}, {4, 2}, {3, 1}, {8, 4}, {8, 2}};
    double expected[ND_TEST_STEPS_MAX], losses[ND_TEST_STEPS_MAX];
    char state[65], all[512];
    snprintf(all, sizeof all, "--set training.batch_size=24 --set training.micro_batch_size=1 %s",
             extra);
    train(0, 0, run_of(0, 0), all);
    cr_assert_eq(nd_test_metric(run_of(0, 0), "loss", expected), STEPS);
    strcpy(state, nd_test_state(run_of(0, 0)));
    cr_assert_eq(strlen(state), 64);
    for (size_t i = 0; i < sizeof groupings / sizeof *groupings; i++) {
        const int ranks = groupings[i][0], group = groupings[i][1];
        if (ranks > ND_TEST_RANKS_MAX)
            continue;
        train(ranks, group, run_of(ranks, group), all);
        cr_assert_eq(nd_test_metric(run_of(ranks, group), "loss", losses), STEPS);
        for (int s = 0; s < STEPS; s++)
            cr_assert_eq(losses[s], expected[s], "%d ranks in %ds, step %d: %.17g, one rank %.17g",
                         ranks, group, s + 1, losses[s], expected[s]);
        cr_assert_str_eq(nd_test_state(run_of(ranks, group)), state, "%d ranks in %ds: state",
                         ranks, group);
    }
}

Test(groups, ranks_in_groups_of_any_size_train_the_bits_of_one)
{
    compare("--set hardware.precision=fp32");
}

Test(groups, so_they_do_in_the_shortest_parts)
{
    compare("--set hardware.precision=fp32 --set model.hidden_dim=64 --set dist.part_kib=16");
}

Test(groups, so_they_do_with_projected_gradients_8_bit_state_and_changed_codes)
{
    compare("--set training.use_galore=true --set training.galore_rank=8 "
            "--set training.galore_update_freq=3 --set training.use_8bit_optim=true "
            "--set dist.weight_sync=delta");
}

Test(groups, so_they_do_when_adamw_owns_rows_and_state_has_4_bits)
{
    compare("--set model.vocab_size=256 --set optimizer.state_bits=4 --set model.hidden_dim=64 "
            "--set dist.embedding_sync=int8_delta --set dist.overlap_grad_reduce=false");
}

/* One micro-batch a rank and no clipping: layers are updated during the backward pass. */
Test(groups, so_they_do_with_updates_during_the_backward_pass)
{
    static const int groups[] = {4, 2, 1};
    double expected[ND_TEST_STEPS_MAX], losses[ND_TEST_STEPS_MAX];
    for (int i = 0; i < 3; i++) {
        train(4, groups[i], run_of(4, groups[i]),
              "--set training.batch_size=4 --set training.micro_batch_size=1 "
              "--set training.grad_clip=0 --set training.use_galore=true "
              "--set training.galore_rank=8");
        cr_assert_eq(nd_test_metric(run_of(4, groups[i]), "loss", i ? losses : expected), STEPS);
        for (int s = 0; i > 0 && s < STEPS; s++)
            cr_assert_eq(losses[s], expected[s], "groups of %d, step %d", groups[i], s + 1);
    }
}

Test(groups, a_run_goes_on_in_any_other_grouping_with_the_same_bits)
{
    static const int onward[][2] = {{4, 2}, {2, 1}, {4, 4}, {0, 0}, {4, 1}};
    double expected[ND_TEST_STEPS_MAX], losses[ND_TEST_STEPS_MAX];
    const char *half = "--set training.batch_size=12 --set training.micro_batch_size=1 "
                       "--checkpoint-interval 4 --set training.use_galore=true "
                       "--set training.galore_rank=8 --set model.vocab_size=256";
    train(0, 0, run_of(0, 0), half);
    nd_test_metric(run_of(0, 0), "loss", expected);
    for (size_t i = 0; i + 1 < sizeof onward / sizeof *onward; i++) {
        const int from = onward[i][0], to = onward[i + 1][0];
        char run[128], state[65], resumed[512];
        snprintf(run, sizeof run, "%s", run_of(100 + (int)i, from));
        strcpy(state, nd_test_state(run_of(0, 0)));
        train(from, onward[i][1], run, half);
        nd_test_shell(NULL, 0, "rm -r %s/checkpoints/step_%08d", run, STEPS);
        snprintf(resumed, sizeof resumed, "%s --resume auto", half);
        train(to, onward[i + 1][1], run, resumed);
        cr_assert_eq(nd_test_metric(run, "loss", losses), STEPS);
        for (int s = 0; s < STEPS; s++)
            cr_assert_eq(losses[s], expected[s], "%d to %d ranks, step %d", from, to, s + 1);
        nd_test_metric(run, "restarts", losses);
        cr_assert(losses[STEPS - 1] == 1, "%s did not resume", run);
        cr_assert_str_eq(nd_test_state(run), state, "%d to %d ranks: another state", from, to);
    }
}

Test(groups, rounded_gradients_give_the_same_bits_again_in_the_same_groups)
{
    double losses[2][ND_TEST_STEPS_MAX];
    for (int i = 0; i < 2; i++) {
        char run[128];
        snprintf(run, sizeof run, "%s", run_of(4, 10 + i));
        train(4, 2, run,
              "--set dist.deterministic=off --set dist.grad_comm_dtype=int8 "
              "--set model.hidden_dim=64");
        cr_assert_eq(nd_test_metric(run, "loss", losses[i]), STEPS);
        cr_assert(isfinite(losses[i][STEPS - 1]));
    }
    cr_assert_eq(memcmp(losses[0], losses[1], STEPS * sizeof **losses), 0);
}

/* A master of rank 2 changes in a bit; rank 0 has its copy. No code need differ by it. */
Test(groups, a_copy_that_differs_is_found_and_its_ranks_are_named)
{
    const int code = nd_test_shell(
        output, sizeof output,
        "ND_FAULT='flip@master:step=6:rank=2' OMPI_ALLOW_RUN_AS_ROOT=1 "
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1 mpirun --oversubscribe -np 4 "
        "%s/nanochat_dist_faulty --config %s --run-dir %s/flip --total-steps 8 "
        "--set dist.replica_check_interval=2 --set dist.group_ranks=2",
        ND_TEST_PROGRAMS, nd_test_here.config, nd_test_here.directory);
    cr_assert_eq(code, 5, "exit %d: %s", code, output);
    cr_assert(strstr(output, "step 6: the master or state of ") != NULL, "%s", output);
    cr_assert(strstr(output, "is not the same on all ranks (rank 0: ") != NULL, "%s", output);
    cr_assert(strstr(output, "; rank 2: ") != NULL, "%s", output);
}

Test(groups, that_do_not_divide_the_ranks_are_refused_with_what_would_fit)
{
    const int code = nd_test_mpirun(output, sizeof output, 4,
                                    "%s --config %s --run-dir %s/refused --set dist.group_ranks=3",
                                    ND_BINARY, nd_test_here.config, nd_test_here.directory);
    cr_assert_eq(code, 2, "exit %d: %s", code, output);
    cr_assert(strstr(output, "group_ranks = 3 does not divide the 4 ranks of this run; 1, 2, 4 "
                             "would") != NULL,
              "%s", output);
}

Test(groups, fit_hosts_when_each_is_within_one_or_has_whole_ones)
{
    static const int even[] = {4, 4, 4, 4}, uneven[] = {2, 4, 2}, odd[] = {3, 3};
    const bool fits[] = {nd_groups_fit_hosts(even, 4, 1),   nd_groups_fit_hosts(even, 4, 2),
                         nd_groups_fit_hosts(even, 4, 4),   nd_groups_fit_hosts(even, 4, 8),
                         nd_groups_fit_hosts(even, 4, 16),  nd_groups_fit_hosts(uneven, 3, 1),
                         nd_groups_fit_hosts(uneven, 3, 2), nd_groups_fit_hosts(uneven, 3, 8),
                         nd_groups_fit_hosts(odd, 2, 3)};
    for (size_t i = 0; i < sizeof fits / sizeof *fits; i++)
        cr_assert(fits[i], "case %zu", i);
    cr_assert_eq(nd_groups_fit_hosts(uneven, 3, 4), false);
    cr_assert_eq(nd_groups_fit_hosts(odd, 2, 2), false);
}

/* The plan counts what is sent, and memory: a rank in a small group owns more. */
Test(groups, the_plan_knows_the_bytes_and_the_memory_of_groups)
{
    static const int groups[] = {4, 2, 1};
    static const char *const set[] = {"training.batch_size=4", "training.micro_batch_size=1",
                                      "model.hidden_dim=64"};
    size_t masters[3];
    for (int g = 0; g < 3; g++) {
        static nd_config config;
        double sent[ND_TEST_STEPS_MAX], mean = 0.0;
        nd_plan plan;
        nd_config_defaults(&config);
        ND_ASSERT_OK(nd_config_read_file(&config, nd_test_here.config));
        for (int i = 0; i < 3; i++)
            ND_ASSERT_OK(nd_config_set(&config, set[i], "test"));
        config.dist.group_ranks = groups[g];
        ND_ASSERT_OK(nd_plan_create(&config, 4, &plan));
        train(4, groups[g], run_of(4, groups[g]),
              "--set training.batch_size=4 --set training.micro_batch_size=1 "
              "--set model.hidden_dim=64");
        nd_test_metric(run_of(4, groups[g]), "comm_bytes", sent);
        for (int s = 1; s < STEPS; s++)
            mean += sent[s] / (STEPS - 1);
        const double planned = nd_wire_bytes_sum(&plan.wire);
        cr_assert(fabs(planned - mean) < 0.01 * mean, "groups of %d: %g sent, %g planned",
                  groups[g], mean, planned);
        masters[g] = plan.bytes[plan.fullest][ND_MEMORY_MASTERS];
        nd_plan_destroy(&plan);
    }
    cr_assert(masters[0] < masters[1] && masters[1] < masters[2]);
}

/* Four ranks on two hosts with 0.01 Gbit/s between them. */
static nd_plan_groups predict(int64_t galore_rank, const char *batch)
{
    static nd_config config;
    static const nd_plan_machine machine = {.between = {3e-5, 8e-7},
                                            .within = {1e-6, 8e-11},
                                            .add_per_byte = 2e-10,
                                            .hosts = 2,
                                            .flops = 1e10};
    nd_plan_groups groups;
    nd_config_defaults(&config);
    ND_ASSERT_OK(nd_config_read_file(&config, nd_test_here.config));
    ND_ASSERT_OK(nd_config_set(&config, "model.hidden_dim=128", "test"));
    ND_ASSERT_OK(nd_config_set(&config, "model.vocab_size=64", "test"));
    ND_ASSERT_OK(nd_config_set(&config, batch, "test"));
    config.training.use_galore = galore_rank > 0;
    config.training.galore_rank = galore_rank;
    config.dist.overlap_grad_reduce = false;
    nd_error_clear();
    if (nd_plan_groups_predict(&config, 4, &machine, &groups) != ND_OK)
        return (nd_plan_groups){0};
    cr_assert_eq(groups.count, 3);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(groups.ranks[i], 1 << i);
    return groups;
}

/* Of one dimension of a gradient little crosses hosts, beside the codes. */
Test(groups, are_several_where_gradients_are_short_beside_codes_and_memory_allows)
{
    const nd_plan_groups thin = predict(1, "training.batch_size=12"),
                         whole = predict(0, "training.batch_size=12");
    cr_assert_eq(nd_plan_groups_choose(&thin, SIZE_MAX), 1, "4 ranks: %g s, 2: %g s, 1: %g s",
                 thin.cost[2].cost.step, thin.cost[1].cost.step, thin.cost[0].cost.step);
    cr_assert_eq(nd_plan_groups_fastest(&thin), 1);
    cr_assert_lt(thin.cost[2].memory, thin.cost[1].memory);
    cr_assert_eq(nd_plan_groups_choose(&thin, thin.cost[2].memory), 2);
    cr_assert_eq(nd_plan_groups_choose(&whole, SIZE_MAX), 2, "4 ranks: %g s, 2: %g s, 1: %g s",
                 whole.cost[2].cost.step, whole.cost[1].cost.step, whole.cost[0].cost.step);
}

Test(groups, are_not_predicted_for_ranks_that_cannot_share_the_batch)
{
    cr_assert_eq(predict(0, "training.batch_size=2").count, 0);
    cr_assert(strstr(nd_error_get()->message, "which 4 ranks cannot share evenly") != NULL, "%s",
              nd_error_get()->message);
    nd_error_clear();
}

Test(groups, that_save_little_are_not_chosen)
{
    nd_plan_groups groups = {.count = 2, .ranks = {2, 4}};
    groups.cost[0].cost.step = 0.96;
    groups.cost[1].cost.step = 1.0;
    cr_assert_eq(nd_plan_groups_choose(&groups, 0), 1);
    cr_assert_eq(nd_plan_groups_fastest(&groups), 0);
    groups.cost[0].cost.step = 0.94;
    cr_assert_eq(nd_plan_groups_choose(&groups, 0), 0);
}

Test(groups, that_keep_less_memory_are_chosen_of_those_that_are_as_fast)
{
    nd_plan_groups groups = {.count = 4, .ranks = {2, 4, 8, 16}};
    const double steps[] = {0.9, 0.895, 0.903, 1.0};
    for (int i = 0; i < 4; i++) {
        groups.cost[i].cost.step = steps[i];
        groups.cost[i].memory = (size_t)(100 - i);
    }
    cr_assert_eq(nd_plan_groups_choose(&groups, 100), 2);
    groups.cost[2].cost.step = 0.905;
    cr_assert_eq(nd_plan_groups_choose(&groups, 100), 1);
    cr_assert_eq(nd_plan_groups_choose(&groups, 97), 3);
}

/* Eight ranks on four hosts, with four micro-batches of a small model each. */
static nd_config *parts_config(const char *set)
{
    static nd_config config;
    static const char *const keys[] = {"model.hidden_dim=128", "model.vocab_size=1024",
                                       "training.batch_size=32", "training.micro_batch_size=1"};
    nd_config_defaults(&config);
    ND_ASSERT_OK(nd_config_read_file(&config, nd_test_here.config));
    for (int i = 0; i < 4; i++)
        ND_ASSERT_OK(nd_config_set(&config, keys[i], "test"));
    ND_ASSERT_OK(nd_config_set(&config, set, "test"));
    return &config;
}

static nd_plan_machine slow_links(double seconds_per_part, double flops)
{
    return (nd_plan_machine){.between = {5e-5, 8e-8, seconds_per_part},
                             .within = {2e-6, 8e-11},
                             .add_per_byte = 2e-10,
                             .hosts = 4,
                             .flops = flops};
}

/* On slow links nearly all of a step is sums. */
static nd_cost cost_with(const char *set,
                         nd_status (*estimate)(const nd_config *, int, const nd_plan_machine *,
                                               nd_plan_cost *))
{
    const nd_plan_machine machine = slow_links(0.0, 1e13);
    nd_config *config = parts_config(set);
    nd_plan_cost plan;
    ND_ASSERT_OK(nd_config_set(config, "dist.part_kib=64", "test"));
    ND_ASSERT_OK(nd_config_set(config, "dist.group_ranks=2", "test"));
    ND_ASSERT_OK(estimate(config, 8, &machine, &plan));
    return plan.cost;
}

Test(groups, compressed_gradients_take_less_time_between_hosts)
{
    const nd_cost whole = cost_with("dist.grad_compression=off", nd_plan_cost_predict),
                  shorter = cost_with("dist.grad_compression=auto", nd_plan_cost_predict),
                  simulated = cost_with("dist.grad_compression=auto", nd_plan_cost_simulate),
                  rounded = cost_with("dist.grad_comm_dtype=bf16", nd_plan_cost_predict);
    cr_assert_float_eq(shorter.reduced / whole.reduced, 0.86, 0.01, "%g of %g", shorter.reduced,
                       whole.reduced);
    cr_assert_float_eq(shorter.step / simulated.step, 1.0, 0.05, "%g and %g", shorter.step,
                       simulated.step);
    cr_assert_eq(shorter.bytes, whole.bytes);
    cr_assert_lt(rounded.reduced, shorter.reduced);
}

static nd_plan_parts choose_parts(const char *set, double seconds_per_part)
{
    const nd_plan_machine machine = slow_links(seconds_per_part, 1e11);
    nd_config *config = parts_config(set);
    nd_plan_parts parts;
    nd_plan_cost chosen, usual;
    ND_ASSERT_OK(nd_plan_parts_choose(config, 8, &machine, &parts));
    cr_assert_eq(parts.kib * 1024, nd_config_part_bytes(config));
    ND_ASSERT_OK(nd_plan_cost_simulate(config, 8, &machine, &chosen));
    ND_ASSERT_OK(nd_config_set(config, "dist.part_kib=256", "test"));
    ND_ASSERT_OK(nd_plan_cost_simulate(config, 8, &machine, &usual));
    cr_assert_float_eq(parts.step / chosen.cost.step, 1.0, 0.05, "%s, %lld KiB: %g, simulated %g",
                       set, (long long)parts.kib, parts.step, chosen.cost.step);
    if (parts.kib != 256 && strcmp(set, "dist.part_kib=16") != 0)
        cr_assert_lt(chosen.cost.step, usual.cost.step, "%lld KiB", (long long)parts.kib);
    return parts;
}

Test(groups, parts_are_shorter_on_slow_links_unless_each_costs_time)
{
    const nd_plan_parts slow = choose_parts("dist.part_kib=auto", 0.0),
                        costly = choose_parts("dist.part_kib=auto", 5e-3),
                        given = choose_parts("dist.part_kib=16", 5e-3),
                        rounded = choose_parts("dist.grad_comm_dtype=int8", 0.0);
    cr_assert_lt(slow.kib, 256);
    cr_assert_lt(slow.step, 0.99 * slow.before);
    cr_assert_gt(costly.kib, slow.kib);
    cr_assert_eq(given.kib, 16);
    cr_assert_eq(rounded.kib, 256, "their bits depend on it");
}

Test(groups, are_described_with_every_candidate_and_what_was_measured)
{
    const nd_plan_machine machine = {
        .between = {5e-5, 8e-9, 9e-6}, .within = {2e-6, 8e-11, 5e-7}, .flops = 1e9};
    nd_plan_groups groups = {.count = 3, .ranks = {1, 2, 4}};
    for (int i = 0; i < 3; i++)
        groups.cost[i].cost.step = 0.01 * (i + 1);
    nd_run_groups_describe(&groups, 1, &(nd_plan_parts){.kib = 64, .step = 0.0175}, &machine,
                           output, sizeof output);
    cr_assert_str_eq(output,
                     "2 of 2 ranks: 20 ms a step predicted (1 of 4: 30, 4 of 1: 10); in parts of "
                     "64 KiB 17.5 ms; measured 1 Gbit/s, 50 us and 9 us a part between hosts, 100 "
                     "Gbit/s, 2 and 0.5 us within, 1e+09 FLOP/s a rank");
}

/* As on a GPU, which a rank has only once. */
Test(groups, what_a_rank_computes_is_measured_on_a_backend_that_stays)
{
    static nd_config config;
    nd_backend *cpu;
    nd_log log = {0};
    double flops = 0.0;
    nd_config_defaults(&config);
    ND_ASSERT_OK(nd_config_read_file(&config, nd_test_here.config));
    ND_ASSERT_OK(nd_cpu_backend_create(&(nd_cpu_backend_options){.threads = 1}, &cpu));
    cpu->log = &log;
    ND_ASSERT_OK(nd_plan_measure_flops(&config, 2, cpu, &flops));
    cr_assert(flops > 0.0);
    cr_assert(cpu->log == &log);
    cr_assert_gt(cpu->ops.workspace_bytes(cpu), 0);
    nd_backend_destroy(cpu);
}

static int plan(int ranks, const char *flops, const char *more)
{
    return nd_test_shell(output, sizeof output,
                         "%s plan --config %s --ranks %d --hosts 2 --set training.batch_size=12 "
                         "--set training.micro_batch_size=1 --flops %s %s",
                         ND_BINARY, nd_test_here.config, ranks, flops, more);
}

Test(groups, the_plan_measures_a_rank_of_them_and_refuses_those_that_straddle_hosts)
{
    cr_assert_eq(plan(4, "measured", "--set dist.group_ranks=2 --bandwidth 1"), 0, "%s", output);
    cr_assert(strstr(output, "gradients between hosts as compressed to 0.86 of") != NULL, "%s",
              output);
    cr_assert_eq(plan(6, "1e9", "--set dist.group_ranks=2 --bandwidth 1"), 2, "%s", output);
    cr_assert(strstr(output, "the first of 2 hosts having 3 ranks and the last 3; 1, 3, 6 would "
                             "fit") != NULL,
              "%s", output);
}

/* MiB of masters in the table of memory. */
static double planned_masters(const char *more)
{
    double masters = 0.0;
    cr_assert_eq(plan(4, "1e10", more), 0, "%s", output);
    const char *at = strstr(output, "  masters ");
    cr_assert(at && sscanf(at, " masters %lf", &masters) == 1, "%s", output);
    return masters;
}

#define SLOW_LINK                                                                                  \
    "--set model.hidden_dim=128 --set model.vocab_size=64 --set training.use_galore=true --set "   \
    "training.galore_rank=1 --set dist.overlap_grad_reduce=false --bandwidth 0.01 "

Test(groups, are_planned_as_a_run_chooses_them)
{
    const double chosen = planned_masters(SLOW_LINK);
    cr_assert(strstr(output, "groups           2 of 2 ranks: ") != NULL, "%s", output);
    cr_assert_eq(planned_masters(SLOW_LINK "--set dist.group_ranks=2"), chosen);
    cr_assert(strstr(output, "groups  ") == NULL, "given, not chosen: %s", output);
    cr_assert_lt(planned_masters(SLOW_LINK "--device-memory 1MiB"), chosen);
    cr_assert(strstr(output, "groups           1 of 4 ranks: ") != NULL, "%s", output);
    cr_assert_lt(planned_masters(SLOW_LINK "--set dist.deterministic=off --set "
                                           "dist.grad_comm_dtype=int8"),
                 chosen);
    cr_assert(strstr(output, "so they are not chosen by what is measured") != NULL, "%s", output);
}
