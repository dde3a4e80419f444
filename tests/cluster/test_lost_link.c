/* The link between two hosts goes down in the middle of training (lost_link.sh). */
#include "support/run_files.h"
#include "support/support.h"

#include <stdlib.h>
#include <string.h>

/* The ranks say themselves how long they waited; the launcher and a busy machine take the rest. */
static const double timeout = 3.0, allowance = 30.0;

static double number_after(const char *output, const char *text)
{
    const char *at = strstr(output, text);
    cr_assert(at != NULL, "no \"%s\" in:\n%s", text, output);
    return atof(at + strlen(text));
}

static void cut_the_link(const char *overlap)
{
    static char output[65536];
    const int allowed = nd_test_shell(output, sizeof output,
                                      "%s/tests/cluster/lost_link.sh --check", ND_SOURCE_DIR);
    if (allowed == 77)
        cr_skip_test("%s", output);
    cr_assert_eq(allowed, 0, "%s", output);
    const char *directory = nd_test_directory();
    const int code =
        nd_test_shell(output, sizeof output,
                      "%s/tests/cluster/lost_link.sh %s %s %s/tests/cluster/small.ini %g "
                      "training.total_steps=100000 dist.group_ranks=2 "
                      "dist.overlap_grad_reduce=%s",
                      ND_SOURCE_DIR, directory, ND_BINARY, ND_SOURCE_DIR, timeout, overlap);
    cr_assert_eq(code, 0, "exit %d:\n%s", code, output);
    cr_log_info("%s", output);
    cr_assert_eq(number_after(output, "ranks "), 2.0, "%s", output);
    cr_assert_gt(number_after(output, "exit "), 0.0, "%s", output); /* 5, or the launcher's own */
    cr_assert_leq(number_after(output, "took "), 1e3 * (timeout + allowance), "%s", output);
    cr_assert_leq(number_after(output, "ranks ended "), 1e3 * (timeout + allowance), "%s", output);
    cr_assert_eq(number_after(output, "left "), 0.0, "%s", output);
    /* Rank 0 gives up waiting, or mpirun misses the other host first and asks rank 0 to stop. */
    const char *said = strstr(output, "nanochat_dist: ");
    cr_assert(said && strstr(said, "rank 0 in step ") && strstr(said, "phase "), "%s", output);
    cr_assert(strstr(said, "waited 3 s for rank 1") || strstr(said, "still waits for rank 1"), "%s",
              output);
    nd_test_remove_directory(directory);
}

Test(lost_link, ends_the_job_in_time_on_both_hosts_and_names_rank_step_and_phase)
{
    cut_the_link("true");
}

Test(lost_link, does_so_without_a_thread_for_the_wire)
{
    cut_the_link("false");
}
