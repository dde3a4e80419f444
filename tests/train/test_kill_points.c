/* A run killed at every point of a step and of a save, and resumed on another number of ranks, ends
 * as the one that was not. Checkpoints are written after steps 4, 8 and 12, beside the steps that
 * follow, and in the last test by saves that are waited for. */
#include "support/run_files.h"
#include "support/support.h"

#include <stdio.h>
#include <string.h>

static char *const directory = nd_test_here.directory, *const config = nd_test_here.config;
static char output[16384], whole_state[65];
static double whole[ND_TEST_STEPS_MAX];

static int start(int ranks, const char *fault, const char *run, const char *extra)
{
    char launch[192] = "";
    if (ranks > 0)
        snprintf(launch, sizeof launch,
                 "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1 "
                 "OMPI_MCA_odls_base_sigkill_timeout=0 "
                 "mpirun --oversubscribe -np %d",
                 ranks);
    return nd_test_shell(output, sizeof output,
                         "ND_FAULT='%s' %s %s/nanochat_dist_faulty --config %s --run-dir %s %s",
                         fault, launch, ND_TEST_PROGRAMS, config, run, extra);
}

static void setup(void)
{
    char run[128];
    nd_test_run_setup();
    snprintf(run, sizeof run, "%s/whole", directory);
    cr_assert_eq(start(0, "", run, ""), 0, "%s", output);
    cr_assert_eq(nd_test_metric(run, "loss", whole), 12);
    strcpy(whole_state, nd_test_state(run));
    cr_assert_eq(strlen(whole_state), 64);
}

TestSuite(kill_points, .init = setup, .fini = nd_test_run_teardown);

static bool resumed_from(int step)
{
    char resumed[64];
    snprintf(resumed, sizeof resumed, "step_%08d at step %d\n", step, step);
    return step == 0 ? strstr(output, "resumed ") == NULL : strstr(output, resumed) != NULL;
}

/* Two ranks, of which the fault kills one; the run must go on from checkpoint `from`, or from
 * `before` where that may not have been finished (0: from the start). */
static void fail_and_resume(const char *name, const char *fault, int from, int before,
                            const char *extra)
{
    char run[128];
    double losses[ND_TEST_STEPS_MAX];
    snprintf(run, sizeof run, "%s/%s", directory, name);
    const int killed = start(2, fault, run, extra);
    cr_assert_eq(killed, 137, "%s: exit %d: %s", fault, killed, output);
    nd_test_shell(output, sizeof output, "find %s -xtype l", run);
    cr_assert_str_eq(output, "", "%s: latest leads nowhere: %s", fault, output);
    const int code = start(0, "", run, "--resume auto");
    cr_assert_eq(code, 0, "%s: the resumed run: exit %d: %s", fault, code, output);
    cr_assert(resumed_from(from) || resumed_from(before), "%s: not from step %d: %s", fault, from,
              output);
    cr_assert_eq(nd_test_metric(run, "loss", losses), 12);
    for (int i = 0; i < 12; i++)
        cr_assert(losses[i] == whole[i], "%s: step %d: %.17g, uninterrupted %.17g", fault, i + 1,
                  losses[i], whole[i]);
    cr_assert_str_eq(nd_test_state(run), whole_state, "%s: another state", fault);
}

/* Kills rank `rank` at the point in `step`. */
static void kill_and_resume(const char *point, int step, int rank, int from, int before,
                            const char *extra)
{
    char fault[128];
    snprintf(fault, sizeof fault, "kill@%s:step=%d:rank=%d", point, step, rank);
    fail_and_resume(point, fault, from, before, extra);
}

Test(kill_points, of_a_step_all_lead_to_the_same_end)
{
    static const char *const points[] = {"backward", "reduction_begun", "losses",  "reduce",
                                         "norms",    "update",          "updated", "weights"};
    for (int i = 0; i < (int)(sizeof points / sizeof *points); i++)
        kill_and_resume(points[i], 7, i % 2, 4, 0, "");
}

Test(kill_points, between_steps_they_do_too)
{
    kill_and_resume("report", 7, 1, 4, 0, "");
    kill_and_resume("evaluate", 6, 0, 4, 0, "");
}

Test(kill_points, of_a_save_leave_the_old_or_the_new_checkpoint_and_the_same_end)
{
    kill_and_resume("save_start", 8, 1, 4, 4, "");
    kill_and_resume("save_files", 8, 0, 4, 4, "");
    kill_and_resume("save_tensor", 8, 1, 4, 4, "");
    kill_and_resume("save_close", 8, 1, 4, 4, "");
    kill_and_resume("save_sync", 8, 0, 4, 4, "");
    kill_and_resume("save_digest", 8, 1, 4, 4, "");
    kill_and_resume("save_gather", 8, 0, 4, 4, "");
    kill_and_resume("save_join", 8, 0, 4, 4, "");
    kill_and_resume("save_config", 8, 0, 4, 4, "");
    kill_and_resume("save_rename", 8, 0, 4, 4, "");
    kill_and_resume("save_link", 8, 0, 8, 8, "");
    kill_and_resume("save_remove", 8, 0, 8, 8, "");
}

/* Renamed, and not removed yet. */
Test(kill_points, of_the_removal_of_old_checkpoints_leave_the_new_one_and_no_part_of_the_old)
{
    kill_and_resume("save_rotate", 8, 0, 8, 8, "--set logging.checkpoint_keep=1");
    nd_test_shell(output, sizeof output, "ls -A %s/save_rotate/checkpoints", directory);
    cr_assert(strstr(output, "step_00000004") == NULL, "%s", output);
}

/* No save follows that would remove it. */
Test(kill_points, of_a_runs_last_removal_leave_nothing_behind_its_next_start)
{
    nd_test_run_scripts("ND_FAULT=kill@save_rotate:step=12:rank=0 $F --config $C --run-dir $D/run "
                        "--set logging.checkpoint_keep=1 > log 2>&1; ls -A run/checkpoints > left;",
                        "grep tmp_step left || exit 1; $T --resume auto > log || exit 2;"
                        "[ -e run/checkpoints/step_00000012/manifest.json ] || exit 3;"
                        "ls -A run/checkpoints > left; ! grep tmp left || exit 4");
}

/* One rank writes for a second or so while the other goes on into the next step. */
Test(kill_points, of_a_step_beside_a_save_do_too)
{
    fail_and_resume("update", "slow@save_tensor:step=8:rank=1,kill@update:step=9:rank=0", 4, 4, "");
    fail_and_resume("reduce", "slow@save_tensor:step=8:rank=0,kill@reduce:step=9:rank=1", 4, 4, "");
    fail_and_resume("weights", "slow@save_sync:step=8:rank=0,kill@weights:step=9:rank=0", 4, 8, "");
}

Test(kill_points, of_a_save_that_is_waited_for_do_so_too)
{
    static const char waiting[] = "--set logging.checkpoint_async=false";
    kill_and_resume("save_close", 8, 1, 4, 4, waiting);
    kill_and_resume("save_gather", 8, 0, 4, 4, waiting);
    kill_and_resume("save_rename", 8, 0, 4, 4, waiting);
    kill_and_resume("save_link", 8, 0, 8, 8, waiting);
}
