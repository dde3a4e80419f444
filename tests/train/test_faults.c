/* Ranks of a training run that stop or die. */
#include "support/run_files.h"
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *const directory = nd_test_here.directory;

TestSuite(train_faults, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

/* Starts a long run on 3 ranks, sends `signal` to rank 1 after some steps, and prints how mpirun
 * ended and the seconds from the signal to that. */
static const char script[] =
    "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1\n"
    "cd $1\n"
    "mpirun --oversubscribe -np 3 $2 --config $1/config.ini --run-dir $1/run --total-steps 100000 "
    "--set training.batch_size=6 --set dist.timeout_seconds=2 > out 2>&1 &\n"
    "job=$!\n"
    "until [ \"$(cat run/metrics.jsonl 2>/dev/null | wc -l)\" -ge 10 ]; do sleep 0.05; done\n"
    "for p in $(pgrep -f \"run-dir $1/run\"); do\n"
    "  if tr '\\0' '\\n' < /proc/$p/environ | grep -qx OMPI_COMM_WORLD_RANK=1; then kill -$3 $p; "
    "fi\n"
    "done\n"
    "start=${EPOCHREALTIME/./}\n"
    "wait $job; echo exit $?\n"
    "echo took $(((${EPOCHREALTIME/./} - start) / 1000)) ms\n"
    "cat out\n";

static void run_fault(char *output, size_t size, const char *signal, int expected)
{
    char path[128], text[32], left[512];
    snprintf(path, sizeof path, "%s/fault.sh", directory);
    nd_test_write_file(path, script, sizeof script - 1);
    nd_test_shell(output, size, "timeout 60 bash %s %s %s %s", path, directory, ND_BINARY, signal);
    snprintf(text, sizeof text, "exit %d\n", expected);
    cr_assert(strstr(output, text) != NULL, "SIG%s: expected %s%s", signal, text, output);
    const char *took = strstr(output, "took ");
    cr_assert(took != NULL && atof(took + 5) <= 30000, "SIG%s: far longer than 2 + 2 s: %s", signal,
              output);
    snprintf(path, sizeof path, "nanochat_dist .*run-dir %s/run", directory);
    nd_test_processes_left(left, sizeof left, path);
    cr_assert_str_eq(left, "", "SIG%s: processes are left: %s\n%s", signal, left, output);
}

static void says(const char *output, const char *text)
{
    cr_assert(strstr(output, text) != NULL, "\"%s\" is not in:\n%s", text, output);
}

Test(train_faults, a_stopped_rank_ends_the_run_with_exit_code_5_and_is_named)
{
    char output[8192];
    run_fault(output, sizeof output, "STOP", 5);
    says(output, "waited 2 s for rank 1");
    says(output, "rank 1 does not answer");
    says(output, "phase ");
}

Test(train_faults, a_dead_rank_ends_the_run_and_the_others_say_where_they_were)
{
    char output[8192];
    run_fault(output, sizeof output, "KILL", 137);
    says(output, "signal 9 (Killed)");
    says(output, "asked to stop: rank ");
    says(output, "still waits for rank 1");
}
