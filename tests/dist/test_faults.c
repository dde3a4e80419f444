/* Ranks that stop, die or do something else: the others end the job in time and say why. */
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* The ranks say themselves how long they waited; the launcher and a busy machine take the rest. */
static const double timeout = 2.0, allowance = 30.0;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Runs the fault on rank `culprit` of 4, and checks how and when the job ends and that nothing of
 * it is left. `expected` < 0: the launcher keeps the exit code to itself. `output` receives what
 * was said. `beside`: what ranks do while the last reduction goes on, see ranks_faults.c. */
static void run_fault_beside(char *output, size_t size, const char *options, const char *fault,
                             int culprit, int expected, const char *beside)
{
    char mark[32], pattern[64], left[256];
    snprintf(mark, sizeof mark, "%.1f00%07d", timeout, (int)getpid());
    const int code = nd_test_mpirun(output, size, 4, "%s %s/ranks_faults %s %d %s %s", options,
                                    ND_TEST_PROGRAMS, fault, culprit, mark, beside);
    const double ended = now();
    cr_assert(expected < 0 || code == expected, "%s: exit %d, expected %d:\n%s", fault, code,
              expected, output);
    const char *at = strstr(output, "fault at ");
    cr_assert(at != NULL, "%s: no fault:\n%s", fault, output);
    cr_assert_leq(ended - atof(at + 9), timeout + allowance, "%s: %.1f s after the fault", fault,
                  ended - atof(at + 9));
    snprintf(pattern, sizeof pattern, "ranks_faults .*%s[ a-z]*$", mark);
    nd_test_processes_left(left, sizeof left, pattern);
    cr_assert_str_eq(left, "", "%s: still there: %s", fault, left);
}

static void run_fault(char *output, size_t size, const char *options, const char *fault,
                      int culprit, int expected)
{
    run_fault_beside(output, size, options, fault, culprit, expected, "");
}

static void says(const char *output, const char *text)
{
    cr_assert(strstr(output, text) != NULL, "\"%s\" is not in:\n%s", text, output);
}

Test(faults, a_stopped_rank_is_named_with_the_step_phase_and_tensor)
{
    char output[8192];
    run_fault(output, sizeof output, "", "stop", 1, 5);
    says(output, "in step 12, phase reduce, waited 2");
    says(output, "rank 1 does not answer");
}

/* Rank 0 waits for rank 2, which waits for rank 3. */
Test(faults, the_rank_at_the_end_of_a_chain_of_waiting_ranks_is_named)
{
    char output[8192];
    run_fault(output, sizeof output, "", "stop", 3, 5);
    says(output, "tree reduction of blk.0.attn_q.weight");
    says(output, "rank 3 does not answer");
}

Test(faults, a_dead_rank_ends_the_job_at_once_through_the_launcher)
{
    char output[8192];
    run_fault(output, sizeof output, "", "kill", 1, 137);
    says(output, "signal 9 (Killed)");
}

Test(faults, a_dead_rank_that_the_launcher_ignores_is_found_by_the_others)
{
    char output[8192];
    nd_test_shell(output, sizeof output, "mpirun --version");
    if (strstr(output, "(Open MPI) 5."))
        cr_skip_test("mpirun of Open MPI 5 now and then hangs after a job with --enable-recovery");
    run_fault(output, sizeof output, "--enable-recovery --mca odls_base_sigkill_timeout 0", "kill",
              1, -1);
    says(output, "in step 12, phase reduce, waited 2");
    says(output, "rank 1 does not answer");
}

Test(faults, ranks_in_different_collectives_find_out_at_the_first_message)
{
    char output[8192];
    run_fault(output, sizeof output, "", "another", 2, 5);
    says(output, "unmatched");
    run_fault(output, sizeof output, "", "skip", 2, 5);
    says(output, "unmatched: rank 2 is in a barrier (collective 7)");
}

Test(faults, a_message_of_another_length_than_expected_is_refused)
{
    char output[8192];
    run_fault(output, sizeof output, "", "short", 2, 5);
    says(output, "rank 2 in step 12, phase reduce, received from rank 1 in a broadcast");
}

Test(faults, a_stopped_rank_is_found_beside_ranks_that_compute)
{
    char output[8192];
    run_fault_beside(output, sizeof output, "", "stop", 1, 5, "computing");
    says(output, "error: rank ");
    says(output, "in step 12, phase reduce, waited 2");
    says(output, "tree reduction of blk.0.attn_q.weight");
    says(output, "rank 1 does not answer");
}

Test(faults, and_by_ranks_that_wait_for_what_they_began)
{
    char output[8192];
    run_fault_beside(output, sizeof output, "", "stop", 3, 5, "finishing");
    says(output, "in step 12, phase reduce, waited 2");
    says(output, "rank 3 does not answer");
}

Test(faults, ranks_that_begin_different_collectives_find_out_while_they_compute)
{
    char output[8192];
    run_fault_beside(output, sizeof output, "", "skip", 2, 5, "computing");
    says(output, "unmatched: rank 2 is in a barrier (collective 7)");
}
