/* What a run survives: saves that fail, file systems that lack something, logs that nobody can
 * write or read; and what it saves before it ends for another reason. */
#include "support/run_files.h"
#include "support/support.h"

#include <signal.h>

static char output[32768];

TestSuite(failed_saves, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

static void run(const char *script)
{
    const int code = nd_test_run_script(output, sizeof output, script);
    cr_assert_eq(code, 0, "exit %d: %s", code, output);
}

#define STATE(run) "$(grep state_sha256 " run "/checkpoints/latest/manifest.json || echo none)"

Test(failed_saves, are_logged_and_tried_again_at_the_next_interval)
{
    run("$B --config $C --run-dir whole > log; for async in true false; do rm -rf run; "
        "LD_PRELOAD=$IO "
        "ND_IO_FAULT=enospc:12:$D/run/checkpoints/.tmp_step_00000008 $T --set "
        "logging.checkpoint_async=$async > log || exit 1;"
        "test \"" STATE("run") "\" = \"" STATE(
            "whole") "\" || exit 2;"
                     "grep -q 'warning: saving a checkpoint failed, 1 in a row: "
                     ".*tmp_step_00000008.*No space "
                     "left' log &&"
                     "echo $(ls -A run/checkpoints) | grep -qx 'latest step_00000004 "
                     "step_00000012' || exit 3; done");
}

Test(failed_saves, on_one_of_two_ranks_are_tolerated_by_both)
{
    run("mpirun --oversubscribe -np 2 env LD_PRELOAD=$IO ND_IO_RANK=1 "
        "ND_IO_FAULT=eio:5:$D/run/checkpoints/.tmp_step_00000004 $T > log || exit 1;"
        "grep -q 'saving a checkpoint failed, 1 in a row: rank 1: ' log && $B info --verify run | "
        "grep -q 'step "
        "12,'");
}

Test(failed_saves, in_a_row_end_the_run_with_the_last_good_one)
{
    run("LD_PRELOAD=$IO ND_IO_FAULT=enospc:12:$D/run/checkpoints/.tmp_step_0000001 $T "
        "--checkpoint-interval 2 --total-steps 30 --set logging.max_failed_saves=2 > log 2>&1;"
        "test $? = 4 && grep -q '2 in a row: .*step_00000012' log || exit 1;"
        "$B info --verify run | grep -q 'step 8,' || exit 2; test $(wc -l < run/metrics.jsonl) -lt "
        "16");
}

Test(failed_saves, at_the_end_of_the_run_are_an_error)
{
    run("LD_PRELOAD=$IO ND_IO_FAULT=enospc:12:$D/run/checkpoints/.tmp_step_00000012 $T > log 2>&1;"
        "test $? = 4 && $B info --verify run | grep -q 'step 8,' || exit 1; rm -r run;"
        "LD_PRELOAD=$IO ND_IO_FAULT=enospc:12:$D/run/checkpoints/.tmp_step_00000008 $T "
        "--total-steps 9 "
        "--set logging.checkpoint_at_end=false > log 2>&1; code=$?;"
        "grep -q 'saving a checkpoint failed, 1 in a row' log && test $code = 0 || test $code = 4");
}

/* Shell text: looks for a read, the n-th, whose failure ends a run (`fail`, which leaves its log
 * and code) after steps 2 to 9. */
#define FIND_READ                                                                                  \
    "low=0; high=900; while :; do n=$(((low + high) / 2)); test $n -gt $low || exit 1; rm -rf "    \
    "run; fail; grep -q 'step_0000000[2-9], state' log && break;"                                  \
    " if grep -q 'step_0000001[0-2], state' log; then high=$n; else low=$n; fi; done;"

/* The second configuration updates layers during the backward pass. */
Test(failed_saves, precede_no_error_of_the_data_without_a_save_of_the_last_whole_step)
{
    run(ND_TEST_MAKE_SHARDS
        "fail() { LD_PRELOAD=$IO ND_IO_FAULT=eio:$n:$D/shards/train $R > log 2>&1; code=$?; };"
        "for set in '' '--set training.grad_clip=0 --set training.micro_batch_size=8'; do rm -rf "
        "whole; R=\"$S $set --checkpoint-interval 100\";" FIND_READ
        "test $code = 3 && grep -q 'training cannot continue; saving first: .*Input/output error' "
        "log || "
        "exit 2;"
        "mv run stopped; $R > log && mv run whole && mv stopped run && $R --resume auto > log || "
        "exit 3;"
        "test \"" STATE("run") "\" = \"" STATE("whole") "\" || exit 4; done");
}

Test(failed_saves, precede_no_error_of_the_data_on_one_of_two_ranks_either)
{
    run(ND_TEST_MAKE_SHARDS
        "fail() { mpirun --oversubscribe -np 2 env LD_PRELOAD=$IO ND_IO_RANK=1 "
        "ND_IO_FAULT=eio:$n:$D/shards/train $S --checkpoint-interval 100 --set "
        "dist.timeout_seconds=20 > log 2>&1; code=$?; };" FIND_READ
        "test $code = 3 && grep -q 'error: rank 1: .*Input/output error' log || exit 2;"
        "mv run stopped; $S > log && mv run whole && mv stopped run && $S --resume auto > log || "
        "exit 3;"
        "test \"" STATE("run") "\" = \"" STATE("whole") "\"");
}

Test(failed_saves, are_none_where_the_file_system_has_no_symbolic_links)
{
    run("LD_PRELOAD=$IO ND_IO_FAULT=nosymlink:1:$D/run $T > log || exit 1;"
        "test $(grep -c 'has no .latest.' log) = 1 && ! test -e run/checkpoints/latest || exit 2;"
        "$B info run | grep -q 'step 12,' && $B eval --checkpoint run --samples 2 || exit 3;"
        "LD_PRELOAD=$IO ND_IO_FAULT=nosymlink:1:$D/run $T --resume run/checkpoints/step_00000004 > "
        "log &&"
        "LD_PRELOAD=$IO ND_IO_FAULT=nosymlink:1:$D/run $T --total-steps 2 > log || exit 4;"
        "$B info run/previous_001 | grep -q 'step 12,'");
}

Test(failed_saves, are_none_where_directories_cannot_be_synced)
{
    run("LD_PRELOAD=$IO ND_IO_FAULT=nodirsync:1:$D/run $T > log || exit 1;"
        "test $(grep -c 'cannot fsync directories' log) = 1 && $B info run | grep -q 'step 12,'");
}

Test(failed_saves, are_none_where_names_cannot_be_exchanged)
{
    run("LD_PRELOAD=$IO ND_IO_FAULT=noexchange:1:$D/run $(dirname $F)/ranks_replace $C $D/run || "
        "exit 1;"
        "echo $(ls -A run/checkpoints) | grep -qx 'latest step_00000004'");
}

/* A crash while a checkpoint is replaced there: the earlier one comes back, and is never removed
 * alone. */
Test(failed_saves, that_replace_a_checkpoint_and_are_killed_leave_the_earlier_one)
{
    run("$T --set logging.checkpoint_keep=1 > log; cd run/checkpoints; mkdir .tmp_step_00000012;"
        "mv step_00000012 .tmp_replaced_step_00000012; rm latest; cd $D;"
        "$T --resume auto --total-steps 14 > log || exit 1; grep -q 'step_00000012 at step 12' log "
        "&&"
        "test -z \"$(ls -A run/checkpoints | grep tmp)\"");
}

/* The log and the metrics lie on a file system that is full after some steps; checkpoints
 * do not. */
Test(failed_saves, are_none_where_the_disk_of_the_logs_is_full)
{
    char listing[4096];
    if (nd_test_run_script(listing, sizeof listing,
                           "mkdir run && mount -t tmpfs -o size=32k tmpfs run") != 0)
        cr_skip_test("no right to mount a small file system here");
    const int code = nd_test_run_script(
        output, sizeof output,
        /* whose file may be the first that does not fit */
        "T=\"$T --set logging.tensorboard=false\";"
        "$T --checkpoint-dir $D/ck --total-steps 300 --checkpoint-interval 50 --log-interval 1 > "
        "log;"
        "code=$?; cp run/metrics.jsonl run/training.log .; $T --checkpoint-dir $D/ck --total-steps "
        "310 "
        "--resume auto > log2; again=$?; umount run; test $code = 0 && test $again = 0 || exit 1;"
        /* a shorter line may fit once more: one warning for each gap in the steps */
        "gaps=$(sed 's/^{\"step\": *\\([0-9]*\\).*/\\1/' metrics.jsonl | awk '$1 != last + 1 { n++ "
        "}"
        " { last = $1 } END { print n + (last < 300) }'); test $gaps -ge 1 &&"
        "test $(grep -c 'warning: cannot write .*metrics.jsonl' log) = $gaps &&"
        "test $(grep -c 'warning: cannot write training.log' log) = 1 &&"
        "test -z \"$(tail -c 1 metrics.jsonl)\" && test $(wc -l < metrics.jsonl) -lt 300 &&"
        "$B info ck | grep -q 'step 310,'");
    cr_assert_eq(code, 0, "exit %d: %s", code, output);
}

Test(failed_saves, are_none_where_nobody_reads_standard_output)
{
    run("$T --log-interval 1 | head -n 1; test $(wc -l < run/metrics.jsonl) = 12 || exit 1;"
        "grep -q 'warning: cannot write the log to standard output: Broken pipe' run/training.log "
        "&&"
        "grep -q 'done    12 steps' run/training.log || exit 2;"
        "$T --log-interval 1 > /dev/full || exit 3; $T >&- || exit 4; test -d run/previous_002 &&"
        "grep -q 'standard output: Bad file descriptor' run/training.log");
}

Test(failed_saves, are_none_when_the_terminal_hangs_up)
{
    signal(SIGHUP, SIG_DFL); /* whoever started the tests may ignore it */
    run("long=\"$T --total-steps 4000 --checkpoint-interval 1000 --set logging.eval_interval=0\";"
        "wait_for() { while test $(cat run/metrics.jsonl 2> /dev/null | wc -l) -lt $1; do sleep "
        "0.05; "
        "done; }; $long > log & wait_for 5; kill -HUP $!; wait $!; test $? = 75 || exit 1;"
        "grep -q 'stopped on a signal after step' log && $B info --verify run > log || exit 2;"
        "rm -r run; nohup $T --total-steps 60 > log & wait_for 5; kill -HUP $!; wait $!");
}

/* Beyond `ulimit -f` the kernel sends SIGXFSZ, which ends a process that has not
 * chosen otherwise. */
Test(failed_saves, are_none_where_a_log_reaches_the_limit_of_file_sizes)
{
    run("(ulimit -f 100; $T --total-steps 200 --checkpoint-interval 0 --set "
        "logging.checkpoint_at_end=false --set logging.eval_interval=0 > log) || exit 1;"
        "test $(grep -c 'warning: cannot write .*metrics.jsonl: File too large' log) = 1 || exit 2;"
        "test -z \"$(tail -c 1 run/metrics.jsonl)\" && grep -q 'done    200 steps' log || exit 3;"
        "(ulimit -f 64; $T > log 2>&1); test $? = 4 && grep -q 'failed, 1 in a row: .*File "
        "too large' log");
}

/* `ulimit -St` and batch systems send SIGXCPU before they kill. */
Test(failed_saves, are_none_where_the_time_of_the_processor_is_up)
{
    run("(ulimit -St 1; $T --total-steps 1000000 --checkpoint-interval 0 --log-interval 100000 > "
        "log); test $? = 75 && $B info --verify run > log");
}
