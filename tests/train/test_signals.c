/* Signals by the thousand while a run computes, saves and evaluates. In nanochat_dist_faulty
 * ND_SIGNALS says how many ask for a stop, so that a run can be made to outlive them. */
#include "support/run_files.h"
#include "support/support.h"
#include "train/signals.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char output[16384];

TestSuite(signals, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

static const char *path_of(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", nd_test_here.directory, name);
    return path;
}

static void nap_ms(double milliseconds)
{
    const struct timespec t = {.tv_nsec = (long)(milliseconds * 1e6)};
    nanosleep(&t, NULL);
}

/* Starts a shell command that replaces the shell; its outputs go to the file `out`. */
static pid_t start(const char *format, const char *isa, const char *run, const char *extra)
{
    char command[2048];
    snprintf(command, sizeof command, format, isa, ND_TEST_PROGRAMS, nd_test_here.config,
             nd_test_here.directory, run, extra, nd_test_here.directory);
    const pid_t child = fork();
    cr_assert(child >= 0, "fork failed");
    if (child == 0) {
        setsid();
        signal(SIGHUP, SIG_DFL); /* whoever started the tests may ignore it */
        execl("/bin/bash", "bash", "-c", command, (char *)NULL);
        _exit(127);
    }
    return child;
}

static void wait_for_step(const char *run)
{
    for (int i = 0; i < 3000; i++) {
        char path[256], *text;
        size_t bytes = 0;
        snprintf(path, sizeof path, "%s/%s/metrics.jsonl", nd_test_here.directory, run);
        text = access(path, R_OK) == 0 ? nd_test_read_file(path, &bytes) : NULL;
        free(text);
        if (bytes > 0)
            return;
        nap_ms(10.0);
    }
    cr_assert(false, "%s made no step within 30 s", run);
}

static const char *outputs(void)
{
    char *text = nd_test_read_file(path_of("out"), NULL);
    snprintf(output, sizeof output, "%s", text ? text : "");
    free(text);
    return output;
}

/* The exit code, or 128 + the signal. */
static int code_of(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Sends `number`s, or with 0 all kinds in turn, until the process ends with *code; returns how
 * many. */
static int bombard(pid_t child, int number, int *code)
{
    static const int kinds[] = {SIGUSR1, SIGTERM, SIGINT, SIGHUP, SIGUSR2, SIGXCPU};
    int sent = 0, status = 0;
    while (waitpid(child, &status, WNOHANG) == 0) {
        kill(child, number ? number : kinds[sent % 6]);
        sent++;
        nap_ms(0.1);
    }
    *code = code_of(status);
    return sent;
}

static const char launch[] =
    "export OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive ND_SIGNALS=1000000000 %s; "
    "exec %s/nanochat_dist_faulty --config %s --run-dir %s/%s --total-steps 8 "
    "--set model.hidden_dim=64 --set model.vocab_size=16384 --set training.seq_length=64 "
    "--set training.micro_batch_size=8 --set hardware.precision=fp32 "
    "--set logging.eval_interval=2 --set logging.checkpoint_interval=2 "
    "--set logging.checkpoint_keep=1 %s > %s/out 2>&1";

/* The products of each instruction set move the stack in their own way, those that sum over a large
 * vocabulary into the heap. */
static void outlives(const char *isa, const char *extra)
{
    int code, status;
    char state[65];
    pid_t child = start(launch, isa, "quiet", extra);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(code_of(status), 0, "%s: %s", isa, outputs());
    strcpy(state, nd_test_state(path_of("quiet")));
    child = start(launch, isa, "run", extra);
    wait_for_step("run");
    const int sent = bombard(child, 0, &code);
    cr_assert_eq(code, 0, "%s, %d signals: exit %d: %s", isa, sent, code, outputs());
    cr_assert(sent > 500, "%s: only %d signals", isa, sent);
    cr_assert_str_eq(nd_test_state(path_of("run")), state, "%s: other weights", isa);
}

Test(signals, by_the_thousand_harm_no_products_of_avx512)
{
    outlives("DNNL_MAX_CPU_ISA=AVX512_CORE", "");
}

Test(signals, by_the_thousand_harm_no_products_of_avx2)
{
    outlives("DNNL_MAX_CPU_ISA=AVX2", "--set hardware.cpu_isa=avx2");
}

Test(signals, by_the_thousand_harm_no_products_beside_generic_kernels)
{
    outlives("DNNL_MAX_CPU_ISA=AVX2", "--set hardware.cpu_isa=generic");
}

/* Starts a long run, sends it one signal, and returns its exit code, -1 if it goes on for so long.
 */
static int stopped_by(int number, const char *before, int seconds)
{
    int status;
    nd_test_shell(output, sizeof output, "rm -rf %s", path_of("run"));
    const pid_t child =
        start("%s export ND_SIGNALS=1; exec %s/nanochat_dist_faulty --config %s --run-dir %s/%s "
              "--total-steps 100000 --set logging.checkpoint_interval=0 %s > %s/out 2>&1",
              before, "run", "");
    wait_for_step("run");
    kill(child, number);
    for (int i = 0; i < 100 * seconds; i++) {
        if (waitpid(child, &status, WNOHANG) == child)
            return code_of(status);
        nap_ms(10.0);
    }
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    return -1;
}

Test(signals, of_each_kind_save_and_end_with_75)
{
    static const int kinds[] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGHUP, SIGXCPU};
    for (int i = 0; i < 6; i++) {
        cr_assert_eq(stopped_by(kinds[i], "", 60), 75, "%s: %s", strsignal(kinds[i]), outputs());
        cr_assert_eq(strlen(nd_test_state(path_of("run"))), 64, "%s saved nothing",
                     strsignal(kinds[i]));
    }
}

/* A shell that is not interactive has SIGINT ignored in what it starts with &. */
Test(signals, that_whoever_started_the_run_ignores_are_left_ignored_only_if_it_is_sighup)
{
    cr_assert_eq(stopped_by(SIGHUP, "trap '' HUP;", 3), -1, "%s", outputs());
    cr_assert_eq(stopped_by(SIGINT, "trap '' INT;", 60), 75, "%s", outputs());
    cr_assert_eq(stopped_by(SIGTERM, "trap '' HUP;", 60), 75, "%s", outputs());
}

Test(signals, before_training_end_the_process_at_once)
{
    const pid_t child = fork();
    if (child == 0) {
        if (nd_signals_start() == ND_OK && kill(getpid(), SIGTERM) == 0)
            sleep(5);
        _exit(1);
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(code_of(status), 128 + SIGTERM);
}

Test(signals, are_unblocked_again_in_child_processes_and_a_closed_pipe_kills_those)
{
    ND_ASSERT_OK(nd_signals_start());
    sigset_t here;
    pthread_sigmask(SIG_SETMASK, NULL, &here);
    cr_assert(sigismember(&here, SIGTERM) && sigismember(&here, SIGHUP));
    int status;
    const pid_t child = fork();
    if (child == 0) {
        struct sigaction pipe_now;
        pthread_sigmask(SIG_SETMASK, NULL, &here);
        sigaction(SIGPIPE, NULL, &pipe_now);
        _exit(sigismember(&here, SIGTERM) || pipe_now.sa_handler != SIG_DFL);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(code_of(status), 0);
}
