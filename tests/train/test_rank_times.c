/* Times of ranks by phase, and the rank that keeps the others waiting. */
#include "support/run_files.h"
#include "support/support.h"
#include "train/rank_times.h"

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

static nd_times_summary slowest(int rank, double factor)
{
    return (nd_times_summary){.own = {.min = 1.0, .median = 1.0, .max = factor, .rank = rank}};
}

Test(rank_times, a_rank_is_named_once_when_it_was_slow_for_ten_steps_in_a_row)
{
    nd_slow_rank slow = {.rank = -1};
    const nd_times_summary two = slowest(2, 1.3), one = slowest(1, 1.3), none = slowest(2, 1.1);
    for (int i = 1; i <= 30; i++)
        cr_assert_eq(nd_slow_rank_found(&slow, &two), i == ND_SLOW_STEPS);
    for (int i = 1; i < ND_SLOW_STEPS; i++)
        cr_assert_not(nd_slow_rank_found(&slow, &one));
    cr_assert_not(nd_slow_rank_found(&slow, &none));
    for (int i = 1; i < ND_SLOW_STEPS; i++)
        cr_assert_not(nd_slow_rank_found(&slow, &one));
    cr_assert(nd_slow_rank_found(&slow, &one));
}

/* ND_FAULT for steps 3 to 14 of a rank, on a clock that other programs do not slow down. */
static void slow_down(int rank, char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "clock@processor");
    for (int step = 3; step <= 14; step++)
        used += (size_t)snprintf(text + used, size - used, ",slower@backward:step=%d:rank=%d", step,
                                 rank);
}

Test(rank_times, a_rank_that_sleeps_in_its_backward_pass_is_named_within_ten_steps)
{
    char fault[1024];
    slow_down(1, fault, sizeof fault);
    const int code = nd_test_shell(
        output, sizeof output,
        "ND_FAULT=%s OMP_NUM_THREADS=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
        "mpirun --oversubscribe -np 2 %s/nanochat_dist_faulty --config %s --run-dir %s/run "
        "--total-steps 14 --set logging.log_interval=1 --set training.use_async_loader=false",
        fault, ND_TEST_PROGRAMS, nd_test_here.config, nd_test_here.directory);
    cr_assert_eq(code, 0, "%s", output);
    const char *line = strstr(output, "slow    rank 1 took at least 20 %");
    cr_assert_not_null(line, "%s", output);
    cr_assert(strstr(line, "mostly in forward_backward") != NULL, "%s", line);
    const char *tenth = strstr(output, "step 12/14");
    cr_assert(tenth && line < tenth, "not named by step 12:\n%s", output);
    cr_assert_eq(
        nd_test_shell(output, sizeof output,
                      "grep -c '\"forward_backward\": *{[^}]*\"rank\": *1' %s/run/metrics.jsonl",
                      nd_test_here.directory),
        0);
    cr_assert_geq(atoi(output), 12, "%s", output);
}
