/* The batch scripts in a real Slurm of two nodes on this machine (two_nodes.sh). */
#include "support/run_files.h"
#include "support/support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { STEPS = 160 }; /* total_steps of small.ini */

/* The first `count` steps of two runs have the same losses, to the bit. */
static void compare(const char *run, const char *undisturbed, int count)
{
    static const char *const keys[] = {"loss", "grad_norm", "val_loss"};
    for (int k = 0; k < 3; k++) {
        double mine[ND_TEST_STEPS_MAX], theirs[ND_TEST_STEPS_MAX];
        nd_test_metric(run, keys[k], mine);
        nd_test_metric(undisturbed, keys[k], theirs);
        for (int i = 0; i < count; i++)
            cr_assert(mine[i] == theirs[i] || (isnan(mine[i]) && isnan(theirs[i])),
                      "step %d: %s is %.17g, undisturbed %.17g", i + 1, keys[k], mine[i],
                      theirs[i]);
    }
}

Test(slurm,
     a_job_that_loses_ranks_and_nodes_and_is_preempted_and_signalled_has_the_bits_of_one_left_alone)
{
    static char output[65536], state[65];
    static const char *const config = ND_SOURCE_DIR "/tests/cluster/small.ini";
    char run[128], alone[128], mpirun[160];
    double steps[ND_TEST_STEPS_MAX];
    const int allowed = nd_test_shell(output, sizeof output,
                                      "%s/tests/cluster/two_nodes.sh --check", ND_SOURCE_DIR);
    if (allowed == 77)
        cr_skip_test("%s", output);
    cr_assert_eq(allowed, 0, "%s", output);
    const char *directory = nd_test_directory();
    snprintf(run, sizeof run, "%s/run", directory);
    snprintf(alone, sizeof alone, "%s/alone", directory);
    snprintf(mpirun, sizeof mpirun, "%s_mpirun", run);
    nd_test_train(0, 0, config, alone, "");
    const int code = nd_test_shell(
        output, sizeof output,
        "%s/tests/cluster/two_nodes.sh %s/cluster %s/tests/cluster/faults.sh %s %s %s %s",
        ND_SOURCE_DIR, directory, ND_SOURCE_DIR, ND_SOURCE_DIR, ND_BINARY, config, run);
    cr_assert_eq(code, 0, "exit %d:\n%s", code, output);
    cr_log_info("%s", output);
    cr_assert_eq(nd_test_metric(run, "step", steps), STEPS);
    compare(run, alone, STEPS);
    strcpy(state, nd_test_state(alone));
    cr_assert_eq(strlen(state), 64);
    cr_assert_str_eq(nd_test_state(run), state);
    const int under_mpirun = nd_test_metric(mpirun, "step", steps);
    cr_assert_gt(under_mpirun, 0);
    compare(mpirun, alone, under_mpirun);
    nd_test_remove_directory(directory);
}
