/* Times of ranks by phase, and the rank that keeps the others waiting. */
#include "support/run_files.h"
#include "support/support.h"
#include "train/log/rank_times.h"

#include <stdio.h>
#include <string.h>

TestSuite(rank_times, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

static char output[1 << 16];

Test(rank_times, minimum_median_maximum_and_its_rank_are_of_each_phase)
{
    double sorted[4];
    const nd_rank_times times[4] = {
        {{1, 50, 9, 4, 3, 2}}, {{7, 20, 8, 4, 3, 2}}, {{3, 40, 7, 4, 3, 2}}, {{5, 50, 6, 4, 3, 2}}};
    const nd_times_summary s = nd_times_summarize(times, sizeof *times, 4, sorted);
    const nd_phase_range data = s.phases[ND_PHASE_DATA],
                         passes = s.phases[ND_PHASE_FORWARD_BACKWARD];
    cr_assert(data.min == 1.0 && data.median == 3.0 && data.max == 7.0 && data.rank == 1);
    cr_assert(passes.min == 20.0 && passes.median == 40.0 && passes.max == 50.0 &&
              passes.rank == 0);
    cr_assert(s.own.max == 58.0 && s.own.rank == 3 && s.own.median == 46.0);
}

/* A step in which ranks 1 and 2 of four take so long, and the others a second. */
static void add(nd_slow_rank slow[4], float one, float two)
{
    double sorted[4];
    const nd_rank_times times[4] = {
        {{0, 1e3f}}, {{0, one, 9e3f}}, {{two - 1e3f, 1e3f, 0, 0}}, {{0, 1e3f}}};
    const nd_times_summary summary = nd_times_summarize(times, sizeof *times, 4, sorted);
    nd_slow_ranks_add(slow, times, sizeof *times, 4, &summary);
}

Test(rank_times, a_rank_is_named_once_when_it_was_slow_for_ten_steps_in_a_row)
{
    nd_slow_rank slow[4] = {{0}};
    for (int i = 1; i <= 30; i++) {
        add(slow, 1e3f, 1300);
        cr_assert_eq(slow[2].steps, i);
        cr_assert(slow[0].steps == 0 && slow[1].steps == 0 && slow[3].steps == 0);
    }
    cr_assert(slow[2].worst == ND_PHASE_DATA && slow[2].worst_ms == 300 && slow[2].own_ms == 1300);
    add(slow, 1e3f, 1100);
    cr_assert_eq(slow[2].steps, 0);
}

Test(rank_times, ranks_that_take_turns_as_the_slowest_are_all_named)
{
    nd_slow_rank slow[4] = {{0}};
    for (int i = 0; i < ND_SLOW_STEPS; i++)
        add(slow, i % 2 ? 1300 : 1500, i % 2 ? 1500 : 1300);
    cr_assert(slow[1].steps == ND_SLOW_STEPS && slow[2].steps == ND_SLOW_STEPS);
}

/* ND_FAULT for steps 3 to 14, on a clock that other programs do not slow down: in each one rank
 * sleeps for 200 ms and, where it is another, the other for 50; they take turns. */
static void slow_down(int one, int other, char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "clock@processor");
    for (int step = 3; step <= 14; step++) {
        const int slower = step % 2 ? one : other;
        used += (size_t)snprintf(text + used, size - used, ",slower@backward:step=%d:rank=%d", step,
                                 slower);
        if (one != other)
            used += (size_t)snprintf(text + used, size - used, ",slow@backward:step=%d:rank=%d",
                                     step, one + other - slower);
    }
}

static void train(int ranks, int one, int other)
{
    char fault[2048];
    slow_down(one, other, fault, sizeof fault);
    const int code = nd_test_shell(
        output, sizeof output,
        "ND_FAULT=%s OMP_NUM_THREADS=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
        "mpirun --oversubscribe -np %d %s/nanochat_dist_faulty --config %s --run-dir %s/run "
        "--total-steps 14 --set logging.log_interval=1 --set training.use_async_loader=false",
        fault, ranks, ND_TEST_PROGRAMS, nd_test_here.config, nd_test_here.directory);
    cr_assert_eq(code, 0, "%s", output);
}

/* Once, and by the tenth step. */
static void expect_named(int rank)
{
    char text[64];
    snprintf(text, sizeof text, "slow    rank %d took at least 20 %%", rank);
    const char *line = strstr(output, text), *tenth = strstr(output, "step 12/14");
    cr_assert_not_null(line, "rank %d is not named:\n%s", rank, output);
    cr_assert_null(strstr(line + 1, text), "rank %d is named twice:\n%s", rank, output);
    cr_assert(strstr(line, "mostly in forward_backward") != NULL, "%s", line);
    cr_assert(tenth && line < tenth, "not named by step 12:\n%s", output);
}

Test(rank_times, a_rank_that_sleeps_in_its_backward_pass_is_named_within_ten_steps)
{
    train(2, 1, 1);
    expect_named(1);
    cr_assert_eq(
        nd_test_shell(output, sizeof output,
                      "grep -c '\"forward_backward\": *{[^}]*\"rank\": *1' %s/run/metrics.jsonl",
                      nd_test_here.directory),
        0);
    cr_assert_geq(atoi(output), 12, "%s", output);
}

/* As the ranks of a slow host do. */
Test(rank_times, two_ranks_that_are_slow_together_are_both_named_within_ten_steps)
{
    train(4, 2, 3);
    expect_named(2);
    expect_named(3);
}
