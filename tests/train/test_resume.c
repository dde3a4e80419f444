/* Runs that are cut off and continued. */
#include "support/run_files.h"
#include "support/support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double whole[ND_TEST_STEPS_MAX];
static char whole_state[65];

TestSuite(resume, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

/* The uninterrupted run that others are compared with. */
static int train_whole(int ranks, const char *extra)
{
    char run[128];
    snprintf(run, sizeof run, "%s/whole", nd_test_here.directory);
    nd_test_train(ranks, 0, nd_test_here.config, run, extra);
    strcpy(whole_state, nd_test_state(run));
    return nd_test_metric(run, "loss", whole);
}

static void assert_same_as_whole(const char *run, int steps)
{
    double losses[ND_TEST_STEPS_MAX], numbers[ND_TEST_STEPS_MAX];
    cr_assert_eq(nd_test_metric(run, "loss", losses), steps);
    nd_test_metric(run, "step", numbers);
    for (int i = 0; i < steps; i++) {
        cr_assert_eq(numbers[i], i + 1, "line %d is of step %g", i + 1, numbers[i]);
        cr_assert_eq(losses[i], whole[i], "step %d: %.17g, uninterrupted %.17g", i + 1, losses[i],
                     whole[i]);
    }
    cr_assert_str_eq(nd_test_state(run), whole_state);
}

/* Trains to step 8 (the schedule still that of 12 steps: epochs end the run), then continues. */
static void cut_and_continue(int before, int after, const char *extra)
{
    char run[128], arguments[512];
    const int steps = train_whole(before, extra);
    snprintf(run, sizeof run, "%s/cut", nd_test_here.directory);
    snprintf(arguments, sizeof arguments, "%s --epochs 1", extra);
    nd_test_train(before, 0, nd_test_here.config, run, arguments);
    snprintf(arguments, sizeof arguments, "%s --resume auto", extra);
    nd_test_train(after, 0, nd_test_here.config, run, arguments);
    assert_same_as_whole(run, steps);
}

Test(resume, on_the_same_ranks_equals_the_uninterrupted_run_to_the_bit)
{
    cut_and_continue(0, 0, "");
    cut_and_continue(2, 2, "--set optimizer.master_precision=bf16");
}

Test(resume, on_another_number_of_ranks_equals_it_too)
{
    cut_and_continue(4, 2, "");
    cut_and_continue(2, 8, "--set training.optimizer_type=adamw");
}

Test(resume, with_quantised_optimizer_state_equals_it_too)
{
    cut_and_continue(0, 2, "--set training.use_8bit_optim=true --set model.hidden_dim=64");
    cut_and_continue(2, 4, "--set optimizer.state_bits=4 --set model.hidden_dim=64");
}

Test(resume, into_another_format_of_optimizer_state_is_refused)
{
    char run[128], output[8192];
    train_whole(0, "--set training.use_8bit_optim=true --set model.hidden_dim=64");
    snprintf(run, sizeof run, "%s/whole", nd_test_here.directory);
    const int code = nd_test_shell(output, sizeof output,
                                   "%s --config %s --run-dir %s --resume auto --set "
                                   "model.hidden_dim=64 --set optimizer.state_bits=4",
                                   ND_BINARY, nd_test_here.config, run);
    cr_assert_eq(code, 4, "exit %d: %s", code, output);
    cr_assert(strstr(output, "momentum_left of blk.") != NULL, "%s", output);
    cr_assert(strstr(output, "state_bits") != NULL, "%s", output);
}

Test(resume, from_a_named_checkpoint_goes_on_from_there)
{
    char run[128], arguments[256];
    const int steps = train_whole(0, "");
    snprintf(run, sizeof run, "%s/branch", nd_test_here.directory);
    snprintf(arguments, sizeof arguments, "--resume %s/whole/checkpoints/step_00000004",
             nd_test_here.directory);
    nd_test_train(0, 0, nd_test_here.config, run, arguments);
    double losses[ND_TEST_STEPS_MAX];
    cr_assert_eq(nd_test_metric(run, "loss", losses), steps - 4);
    cr_assert_eq(memcmp(losses, whole + 4, (size_t)(steps - 4) * sizeof *losses), 0);
}

/* Starts a run of `ranks` ranks in the background and returns the shell's process. */
static pid_t start(int ranks, const char *run, const char *extra)
{
    char command[2048];
    snprintf(command, sizeof command,
             "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1 exec "
             "mpirun --oversubscribe -np %d %s --config %s --run-dir %s %s >%s.out 2>&1",
             ranks, ND_BINARY, nd_test_here.config, run, extra, run);
    const pid_t child = fork();
    if (child == 0) {
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    return child;
}

static int lines_of(const char *path)
{
    size_t bytes = 0;
    char *text = nd_test_read_file(path, &bytes);
    int lines = 0;
    for (size_t i = 0; text && i < bytes; i++)
        lines += text[i] == '\n';
    free(text);
    return lines;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Waits until `run` has completed `steps` steps. */
static void wait_for_steps(const char *run, int steps)
{
    char path[160];
    snprintf(path, sizeof path, "%s/metrics.jsonl", run);
    for (const double start_time = seconds(); lines_of(path) < steps; usleep(500))
        cr_assert(seconds() - start_time < 60.0, "no %d steps in a minute", steps);
}

/* Waits for the process to end; returns its exit code and how long that took. */
static int wait_for_end(pid_t child, double *took)
{
    int status = 0;
    const double start_time = seconds();
    for (;;) {
        const pid_t ended = waitpid(child, &status, WNOHANG);
        if (ended == child)
            break;
        cr_assert(seconds() - start_time < 60.0, "the job hangs");
        usleep(1000);
    }
    *took = seconds() - start_time;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* kill -9 of the highest rank: the last started process of this run. */
static void kill_a_rank(const char *run)
{
    const int code =
        nd_test_shell(NULL, 0, "kill -9 $(pgrep -n -f '^[^ ]*nanochat_dist .*%s ')", run);
    cr_assert_eq(code, 0, "no rank to kill");
}

static const char *const long_run = "--set training.total_steps=400 --checkpoint-interval 5 --set "
                                    "training.schedule_type=constant --set logging.eval_interval=0";

/* After a kill: the job has ended with an error within seconds, and goes on as if
 * nothing happened. */
static void continue_after_kill(pid_t child, const char *run)
{
    double took;
    char arguments[512];
    const int code = wait_for_end(child, &took);
    cr_assert_neq(code, 0);
    cr_assert_lt(took, 60.0, "the job took %g s to end", took);
    double losses[ND_TEST_STEPS_MAX];
    const int reached = nd_test_metric(run, "loss", losses);
    snprintf(arguments, sizeof arguments, "%s --resume auto --total-steps %d", long_run,
             reached + 20);
    nd_test_train(2, 0, nd_test_here.config, run, arguments);
    snprintf(arguments, sizeof arguments, "%s --total-steps %d", long_run, reached + 20);
    const int steps = train_whole(2, arguments);
    assert_same_as_whole(run, steps);
}

/* Continues `first` in another directory and is killed in step 11, before it has saved. */
static void fork_and_kill(const char *first, const char *run)
{
    char output[8192];
    const int code =
        nd_test_shell(output, sizeof output,
                      "ND_FAULT=kill@report:step=11:rank=0 %s/nanochat_dist_faulty --config "
                      "%s --checkpoint-interval 0 --run-dir %s --resume %s",
                      ND_TEST_PROGRAMS, nd_test_here.config, run, first);
    cr_assert_eq(code, 128 + SIGKILL, "exit %d: %s", code, output);
}

Test(resume, of_a_run_that_began_elsewhere_goes_back_there_until_it_has_saved)
{
    char first[128], run[128], again[128], arguments[256], moved[160], output[8192];
    double losses[ND_TEST_STEPS_MAX];
    snprintf(first, sizeof first, "%s/first", nd_test_here.directory);
    snprintf(run, sizeof run, "%s/onward", nd_test_here.directory);
    snprintf(again, sizeof again, "%s/again", nd_test_here.directory);
    snprintf(moved, sizeof moved, "%s.moved", first);
    nd_test_train(0, 0, nd_test_here.config, first, "--epochs 1");
    snprintf(arguments, sizeof arguments, "--resume %s", first);
    const int steps = train_whole(0, arguments);
    fork_and_kill(first, run);
    nd_test_train(0, 0, nd_test_here.config, run, "--resume auto");
    cr_assert_eq(nd_test_metric(run, "loss", losses), steps);
    cr_assert_eq(memcmp(losses, whole, (size_t)steps * sizeof *losses), 0);
    cr_assert_str_eq(nd_test_state(run), whole_state);
    fork_and_kill(first, again);
    cr_assert_eq(rename(first, moved), 0);
    const int code =
        nd_test_shell(output, sizeof output, "%s --config %s --run-dir %s --resume auto", ND_BINARY,
                      nd_test_here.config, again);
    cr_assert_eq(code, 4, "exit %d: %s", code, output);
    cr_assert(strstr(output, "began with") && strstr(output, "--resume none starts a new run") &&
                  strstr(output, "/first/checkpoints/step_00000008"),
              "%s", output);
}

Test(resume, of_a_run_that_began_in_a_long_path_goes_back_there_too)
{
    nd_test_run_scripts(
        "long=$(printf 'a directory with a name of 48 characters, no more/%.0s' $(seq 40));"
        "mkdir -p \"$long\"; $T --epochs 1 > out || exit 1; mv run \"$long\";",
        "ND_FAULT=kill@report:step=11:rank=0 $F --config $C --checkpoint-interval 0 --run-dir "
        "$D/run --resume \"$long/run\" > out 2>&1; $T --resume auto > out 2>&1 || exit 2;"
        "grep -q 'resumed /.*characters, no more/' out || exit 3;"
        "[ $(wc -l < run/metrics.jsonl) = 4 ] || exit 4;"
        "awk 'length > 1000 { exit 1 }' run/config.ini || exit 5");
}

Test(resume, after_kill_9_of_a_rank_during_a_step)
{
    char run[128];
    snprintf(run, sizeof run, "%s/killed", nd_test_here.directory);
    const pid_t child = start(2, run, long_run);
    wait_for_steps(run, 8);
    kill_a_rank(run);
    continue_after_kill(child, run);
}

/* The checkpoint is being written while its temporary directory exists. */
Test(resume, after_kill_9_of_a_rank_during_a_save)
{
    char run[128], pattern[256];
    struct stat info;
    snprintf(run, sizeof run, "%s/killed", nd_test_here.directory);
    const pid_t child = start(2, run, long_run);
    wait_for_steps(run, 12);
    const double start_time = seconds();
    bool saving = false;
    while (!saving) {
        for (int step = 15; step <= 400 && !saving; step += 5) {
            snprintf(pattern, sizeof pattern, "%s/checkpoints/.tmp_step_%08d", run, step);
            saving = stat(pattern, &info) == 0;
        }
        cr_assert(seconds() - start_time < 30.0, "no save seen in 30 s");
    }
    kill_a_rank(run);
    continue_after_kill(child, run);
}

Test(resume, sigterm_saves_and_exits_75_and_the_run_goes_on)
{
    char run[128], arguments[512];
    snprintf(run, sizeof run, "%s/stopped", nd_test_here.directory);
    const pid_t child = start(2, run, long_run);
    wait_for_steps(run, 7);
    nd_test_shell(NULL, 0, "pkill -TERM -f '^[^ ]*nanochat_dist .*%s '", run);
    double took, losses[ND_TEST_STEPS_MAX];
    const int code = wait_for_end(child, &took);
    cr_assert_eq(code, 75, "exit %d", code);
    const int reached = nd_test_metric(run, "loss", losses);
    snprintf(arguments, sizeof arguments, "%s --resume auto --total-steps %d", long_run,
             reached + 5);
    nd_test_train(2, 0, nd_test_here.config, run, arguments);
    snprintf(arguments, sizeof arguments, "%s --total-steps %d", long_run, reached + 5);
    assert_same_as_whole(run, train_whole(2, arguments));
}

Test(resume, only_the_newest_checkpoints_are_kept_and_latest_names_the_last)
{
    char run[128], output[4096];
    snprintf(run, sizeof run, "%s/kept", nd_test_here.directory);
    nd_test_train(0, 0, nd_test_here.config, run,
                  "--checkpoint-interval 2 --set logging.checkpoint_keep=2");
    nd_test_shell(output, sizeof output, "cd %s/checkpoints && echo $(ls -A) $(readlink latest)",
                  run);
    cr_assert_str_eq(output, "latest step_00000010 step_00000012 step_00000012\n");
}

Test(resume, a_fresh_start_sets_an_earlier_run_aside)
{
    char run[128], output[4096];
    snprintf(run, sizeof run, "%s/again", nd_test_here.directory);
    nd_test_train(0, 0, nd_test_here.config, run, "");
    nd_test_train(0, 0, nd_test_here.config, run, "--epochs 1");
    nd_test_shell(output, sizeof output,
                  "cd %s && readlink checkpoints/latest previous_001/checkpoints/latest && cat "
                  "metrics.jsonl | wc -l && cat previous_001/metrics.jsonl | wc -l",
                  run);
    cr_assert_str_eq(output, "step_00000008\nstep_00000012\n8\n12\n");
}

Test(resume, a_fresh_start_leaves_what_else_lies_in_the_checkpoint_directory)
{
    char run[128], output[4096], arguments[256];
    snprintf(run, sizeof run, "%s/elsewhere", nd_test_here.directory);
    snprintf(arguments, sizeof arguments, "--total-steps 2 --checkpoint-dir %s/kept_here",
             nd_test_here.directory);
    nd_test_shell(NULL, 0, "mkdir %s/kept_here && echo mine > %s/kept_here/notes",
                  nd_test_here.directory, nd_test_here.directory);
    nd_test_train(0, 0, nd_test_here.config, run, arguments);
    nd_test_train(0, 0, nd_test_here.config, run, arguments);
    nd_test_shell(output, sizeof output, "cd %s/kept_here && echo $(ls . previous_001)",
                  nd_test_here.directory);
    cr_assert_str_eq(output, ".: latest notes previous_001 step_00000002 previous_001: latest "
                             "step_00000002\n");
}

/* Going back to an earlier step gives up what came after it. */
Test(resume, from_an_earlier_step_sets_later_checkpoints_aside)
{
    char run[128], output[4096], arguments[256];
    snprintf(run, sizeof run, "%s/back", nd_test_here.directory);
    nd_test_train(0, 0, nd_test_here.config, run, "");
    snprintf(arguments, sizeof arguments,
             "--resume %s/checkpoints/step_00000004 --checkpoint-interval 2 --total-steps 6 "
             "--set logging.checkpoint_keep=1",
             run);
    nd_test_train(0, 0, nd_test_here.config, run, arguments);
    nd_test_shell(output, sizeof output, "cd %s/checkpoints && echo $(ls) $(readlink latest)", run);
    cr_assert_str_eq(output, "latest step_00000006 superseded_step_00000008 "
                             "superseded_step_00000012 step_00000006\n");
}

Test(resume, auto_refuses_when_every_checkpoint_is_damaged)
{
    char run[128], output[8192];
    snprintf(run, sizeof run, "%s/damaged", nd_test_here.directory);
    nd_test_train(0, 0, nd_test_here.config, run, "");
    nd_test_shell(NULL, 0,
                  "for f in %s/checkpoints/step_*/rank_0000.h5; do truncate -s 100 $f; done", run);
    const int code =
        nd_test_shell(output, sizeof output, "%s --config %s --run-dir %s --resume auto", ND_BINARY,
                      nd_test_here.config, run);
    cr_assert_eq(code, 4, "exit %d: %s", code, output);
    cr_assert(strstr(output, "all 3 checkpoints are damaged") != NULL, "%s", output);
    cr_assert(strstr(output, "rank_0000.h5: damaged: 100 bytes, expected") != NULL, "%s", output);
}

Test(resume, changed_keys_are_named)
{
    char run[128], output[8192];
    snprintf(run, sizeof run, "%s/changed", nd_test_here.directory);
    nd_test_train(0, 0, nd_test_here.config, run, "--epochs 1");
    const int code =
        nd_test_shell(output, sizeof output,
                      "%s --config %s --run-dir %s --resume auto --set training.learning_rate=0.01",
                      ND_BINARY, nd_test_here.config, run);
    cr_assert_eq(code, 0, "exit %d: %s", code, output);
    cr_assert(strstr(output, "changed training.learning_rate was 0.02, is 0.01") != NULL, "%s",
              output);
}

Test(resume, auto_starts_anew_where_there_is_nothing)
{
    char run[128];
    snprintf(run, sizeof run, "%s/fresh", nd_test_here.directory);
    nd_test_train(0, 0, nd_test_here.config, run, "--resume auto");
    double losses[ND_TEST_STEPS_MAX];
    cr_assert_eq(nd_test_metric(run, "loss", losses), 12);
}

/* Names and values as earlier versions wrote them. */
Test(resume, from_a_checkpoint_with_old_names_of_keys_equals_the_uninterrupted_run)
{
    char run[128], output[16384];
    const int steps = train_whole(2, "");
    snprintf(run, sizeof run, "%s/cut", nd_test_here.directory);
    nd_test_train(2, 0, nd_test_here.config, run, "--epochs 1");
    cr_assert_eq(
        nd_test_run_script(output, sizeof output,
                           "python3 - <<'P'\n"
                           "import hashlib, json, os, re\n"
                           "d = os.path.realpath('cut/checkpoints/latest')\n"
                           "t = open(d + '/config.ini').read()\n"
                           "for old, new in (('check_interval', 'replica_check_interval'),\n"
                           "                 ('overlap', 'overlap_grad_reduce'), ('gradient_wire', "
                           "'grad_comm_dtype'),\n"
                           "                 ('weight_wire', 'weight_sync'), ('packed_codes', "
                           "'pack_ternary_weights')):\n"
                           "    t = re.sub('(?m)^%s = ' % new, old + ' = ', t)\n"
                           "t = t.replace('weight_wire = full', 'weight_wire = packed')\n"
                           "t = t.replace('\\nstate_bits = 32', '\\nstate_bits = auto')\n"
                           "t = t.replace('[training]', '[training]\\nuse_8bit_optim = "
                           "false')\n" ND_TEST_SIGN_CONFIG "P\n"
                           "grep -q '^weight_wire = packed$' cut/checkpoints/latest/config.ini"),
        0, "%s", output);
    nd_test_train(2, 0, nd_test_here.config, run, "--resume auto --set dist.overlap=true");
    assert_same_as_whole(run, steps);
    cr_assert_eq(
        nd_test_run_script(output, sizeof output,
                           "grep -c 'old names, still accepted: dist.overlap = true is now "
                           "dist.overlap_grad_reduce = true$' cut/training.log && "
                           "grep -q '^overlap_grad_reduce = true$' cut/config.ini && "
                           "! grep -q 'changed optimizer' cut/training.log"),
        0, "%s", output);
    cr_assert_str_eq(output, "1\n");
}
