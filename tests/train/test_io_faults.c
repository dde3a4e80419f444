/* A disk that fails at any call of a save: full, broken, or writing less than it was asked to. */
#include "support/run_files.h"
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char output[16384];

TestSuite(io_faults, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

/* Every call when ND_IO_FAULTS_ALL is set, otherwise every `stride`-th. */
static void fail_at_each_call(const char *kind, int stride, const char *set)
{
    const bool all = getenv("ND_IO_FAULTS_ALL") != NULL;
    char place[128];
    snprintf(place, sizeof place, "%s/%s", nd_test_here.directory, kind);
    const int code =
        nd_test_shell(output, sizeof output,
                      "mkdir -p %s && OMP_NUM_THREADS=1 %s/ranks_io_faults %s %s %s 1 %d %s", place,
                      ND_TEST_PROGRAMS, nd_test_here.config, place, kind, all ? 1 : stride, set);
    cr_assert_eq(code, 0, "exit %d: %s", code, output);
    cr_assert(strstr(output, "0 wrong") != NULL, "%s", output);
    fputs(output, stderr);
}

static const char *const quantized = "training.use_8bit_optim=true training.use_galore=true "
                                     "training.galore_rank=8 model.vocab_size=256";

Test(io_faults, a_disk_full_from_any_call_on_leaves_a_whole_checkpoint_and_a_named_file)
{
    fail_at_each_call("enospc", 5, quantized);
}

Test(io_faults, an_io_error_at_any_call_does_too)
{
    fail_at_each_call("eio", 5, quantized);
}

Test(io_faults, writes_that_are_cut_short_are_continued)
{
    fail_at_each_call("short", 7, quantized);
}

/* Two ranks; the disk fails on one of them. Then the run goes on, alone. Steps after the save are
 * slow, so that its failure is known before the last one, whose save would make up for it. */
static void fail_under_mpirun(const char *fault, int rank, const char *mode)
{
    char run[128], state[65];
    snprintf(run, sizeof run, "%s/whole", nd_test_here.directory);
    nd_test_train(2, 0, nd_test_here.config, run, "");
    strcpy(state, nd_test_state(run));
    snprintf(run, sizeof run, "%s/failing", nd_test_here.directory);
    const int code = nd_test_shell(
        output, sizeof output,
        "ASAN_OPTIONS=verify_asan_link_order=0 OMPI_ALLOW_RUN_AS_ROOT=1 "
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1 mpirun --oversubscribe -np 2 "
        "env ND_FAULT=slower@backward:step=9:rank=0,slower@backward:step=10:rank=0,"
        "slower@backward:step=11:rank=0 LD_PRELOAD=" ND_IO_FAULTS
        " ND_IO_FAULT=%s:%s/checkpoints/.tmp_step_00000008 "
        "ND_IO_RANK=%d " ND_TEST_PROGRAMS
        "/nanochat_dist_faulty --config %s --run-dir %s --set logging.max_failed_saves=1 "
        "--set logging.checkpoint_async=%s",
        fault, run, rank, nd_test_here.config, run, mode);
    cr_assert_eq(code, 4, "%s: exit %d: %s", fault, code, output);
    cr_assert(strstr(output, "error: rank ") != NULL, "%s", output);
    cr_assert(strstr(output, "checkpoints/.tmp_step_00000008") != NULL, "%s", output);
    cr_assert(strstr(output, "No space left on device") || strstr(output, "Input/output error"),
              "%s", output);
    cr_assert_eq(nd_test_shell(output, sizeof output, "%s info --verify %s", ND_BINARY, run), 0,
                 "%s", output);
    cr_assert(strstr(output, "step 4,") != NULL, "%s", output);
    nd_test_train(0, 0, nd_test_here.config, run, "--resume auto");
    cr_assert_str_eq(nd_test_state(run), state, "%s: another state", fault);
}

Test(io_faults, of_one_rank_ends_all_with_exit_code_4)
{
    fail_under_mpirun("enospc:12", 1, "true");
    fail_under_mpirun("eio:30", 0, "true");
    fail_under_mpirun("eio:5", 1, "false");
}
