/* Where a run's files and checkpoints lie: other working directories, other users, copies, names
 * that are taken, places that cannot be read. No command takes another run's for them, or goes back
 * in silence. */
#include "support/run_files.h"
#include "support/support.h"

static char output[32768];

TestSuite(run_places, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

static void run(const char *script)
{
    const int code = nd_test_run_script(output, sizeof output, script);
    cr_assert_eq(code, 0, "exit %d: %s", code, output);
}

/* Runs of one name below two directories, as two users or experiments have them. */
#define TWO_RUNS                                                                                   \
    "mkdir a b; for r in a b; do cd $D/$r; $B --config $C --run-dir run --checkpoint-dir ck "      \
    "--total-steps 8 --set training.learning_rate=0.0$((1 + ${#x})) > log || exit 90; x=1; done; " \
    "cd $D;"

/* config.ini holds the whole path; older ones hold what was given. */
Test(run_places, named_relative_to_another_working_directory_are_not_another_runs)
{
    run(TWO_RUNS
        "cd b; $B info ../a/run > log || exit 1; grep -q \"checkpoint $D/a/ck\" log || exit 2;"
        "sed -i 's/^checkpoint_dir.*/checkpoint_dir = ck/' ../a/run/config.ini;"
        "for c in 'info ../a/run' 'eval --checkpoint ../a/run' 'export --checkpoint ../a/run --out "
        "m.gguf' \"--config $C --run-dir new --resume ../a/run\"; do $B $c > log 2>&1;"
        " test $? = 4 && grep -q 'ck/latest, .* is of run .*, but ../a/run/config.ini is of run' "
        "log || exit 3; done; ! test -e m.gguf && test -z \"$(ls new 2> /dev/null | grep -v "
        "checkpoints)\"");
}

Test(run_places, of_checkpoints_that_resume_auto_was_not_told_are_named_and_nothing_is_moved)
{
    run("$T --checkpoint-dir $D/ck > log; find run ck -type f | sort > before;"
        "for where in '' '--checkpoint-dir other'; do $T --resume auto $where > log 2>&1;"
        " test $? = 4 && grep -q \"the run in .*/run has $D/ck/latest; .* --checkpoint-dir\" log "
        "|| exit 1;"
        " find run ck -type f | sort > after; diff before after || exit 2; done;"
        "$T --resume auto --checkpoint-dir ck --total-steps 14 > log || exit 3;"
        "grep -q 'resumed .*at step 12' log || exit 4;"
        "$T --resume none --total-steps 2 > log && test -d run/previous_001");
}

Test(run_places, that_differ_between_ranks_are_refused_before_anything_is_touched)
{
    run("mkdir a b; R=\"$B --config $C --run-dir run\"; mpirun --oversubscribe -wdir $D/a -np 1 $R "
        ": -wdir $D/b -np 1 $R > log 2>&1; test $? = 2 || exit 1;"
        "grep -q \"rank 1: run/checkpoints, which is absent here (working directory $D/b), is not "
        "the directory that rank 0 on host\" log || exit 2; test -z \"$(find a b -type f)\"");
}

/* `latest` leads to another checkpoint before a reader is through with one. */
Test(run_places, are_read_while_the_run_trains)
{
    run("$T --total-steps 100000 --set model.vocab_size=16384 --checkpoint-interval 1 --set "
        "logging.checkpoint_keep=100000 --set logging.eval_interval=0 > train 2>&1 & job=$!;"
        "until test -e run/checkpoints/latest/manifest.json; do sleep 0.02; done;"
        "for i in $(seq 6); do for c in 'run' 'run/checkpoints' 'run/checkpoints/latest/'; do"
        " $B info --verify $c > log 2>&1 || exit 1; done; done;"
        "a=$(readlink run/checkpoints/latest); kill $job; wait $job; test $? = 75 || exit 2;"
        "test $a != step_00000001");
}

/* Each rank reads what it owns: of one checkpoint, though the path names two. */
Test(run_places, of_a_checkpoint_that_differ_between_ranks_are_refused)
{
    run(TWO_RUNS
        "R=\"$B --config $C --run-dir $D/run --resume ck/latest\"; mpirun --oversubscribe "
        "-wdir $D/a -np 1 $R : -wdir $D/b -np 1 $R > log 2>&1; test $? = 4 || exit 1;"
        "grep -q 'rank 1: ck/step_[0-9]*: its state is .* here and .* on rank 0' log || exit 2;"
        "mpirun --oversubscribe -wdir $D/a -np 1 $B eval "
        "--checkpoint ck --samples 2 : -wdir $D/b -np 1 $B eval --checkpoint ck --samples 2 > log "
        "2>&1; test $? = 4 && grep -q 'rank 1: ck/step_[0-9]*: its state is' log || exit 3;"
        "cp -r a/ck again; mkdir c; mv again c/ck; mpirun --oversubscribe -wdir $D/a -np 1 $R : "
        "-wdir $D/c -np 1 $R > log");
}

Test(run_places, with_the_users_config_are_left_as_they_are)
{
    run("mkdir run; (echo '# mine'; cat config.ini) > run/config.ini; cp run/config.ini before;"
        "for r in none auto; do $B --config run/config.ini --run-dir run --resume $r > log 2>&1;"
        " test $? = 2 && grep -q 'run/config.ini: this is where the run.s configuration goes' log "
        "&& cmp before run/config.ini || exit 1; done; test -z \"$(find run -type f ! -name "
        "config.ini)\" || exit 2;"
        "mv run/config.ini run/mine.ini; $B --config run/mine.ini --run-dir run > log && cmp "
        "before run/mine.ini || exit 3; $B --config run/config.ini --run-dir run --resume auto "
        "--total-steps 13 > log && cmp before run/mine.ini");
}

/* What cannot be read may be whole: no earlier checkpoint is taken for it, and no other run. */
Test(run_places, that_cannot_be_read_are_an_error_and_not_damaged)
{
    run("$T > log; find run -type f | sort > before; ck=$D/run/checkpoints/step_00000012;"
        "for f in $ck/manifest.json $ck/config.ini $ck/rank_0000.h5 $D/run/config.ini; do"
        " LD_PRELOAD=$IO ND_IO_FAULT=eio:1:$f $T --resume auto > log 2>&1;"
        " test $? != 0 && grep -q \"$f.*: Input/output error\" log || exit 1;"
        " find run -type f | sort > after; diff before after || exit 2; done;"
        "LD_PRELOAD=$IO ND_IO_FAULT=eio:1:$ck/rank_0000.h5 $T --resume auto > log 2>&1;"
        "test $? = 4 && grep -q 'may be complete, so no earlier one is taken: try again' log || "
        "exit "
        "3;"
        "LD_PRELOAD=$IO ND_IO_FAULT=eio:1:$D/run/config.ini $B info $D/run > log 2>&1; test $? = "
        "4");
}

Test(run_places, of_another_user_are_refused_and_the_owner_named)
{
    if (nd_test_run_script(output, sizeof output, "test $(id -u) = 0 && setpriv --version") != 0)
        cr_skip_test("no right to become another user here");
    run("N='setpriv --reuid=65534 --regid=65534 --clear-groups'; chmod 755 .; $T > log;"
        "chmod a+rwx run run/checkpoints; echo '{}' > run/run.lock; $N $T --resume auto > log 2>&1;"
        "test $? = 1 && grep -q 'run/run.lock: Permission denied; it names a process that cannot "
        "be seen' log || exit 1; rm run/run.lock; chmod 600 run/config.ini;"
        "$N $T --resume auto > log 2>&1; test $? = 1 && grep -q 'run/config.ini: .*Permission' log "
        "|| exit 2; chmod 644 run/config.ini; chmod 700 run/checkpoints/step_00000012;"
        "$N $B info run > log 2>&1; test $? = 4 && grep -q 'latest/manifest.json: Permission "
        "denied' log");
}

/* The copy has the lock's record too. */
Test(run_places, that_are_copied_from_a_live_run_can_be_used)
{
    run("$T --total-steps 100000 --checkpoint-interval 4 --set logging.checkpoint_keep=0 > log & "
        "until test -d run/checkpoints/step_00000008; do sleep 0.05; done;"
        "cp -r run copy 2> /dev/null; test -f copy/run.lock || exit 1;"
        "$B --config $C --run-dir run --resume auto > log2 2>&1; test $? = 2 || exit 2;"
        "$B --config $C --run-dir copy --resume auto --total-steps 9 > log3 2>&1; code=$?;"
        "kill $!; wait $!; test $code = 0 || { cat log3; exit 3; }");
}

/* A directory with a rank's file was meant to be a checkpoint; nothing else is taken for it. */
Test(run_places, of_half_a_checkpoint_are_exchanged_for_no_other)
{
    run("$T --checkpoint-dir $D/ck > log; cp -r ck/step_00000008 half; rm half/manifest.json;"
        "for c in 'info half' 'eval --checkpoint half' \"--config $C --run-dir new --resume "
        "half\"; "
        "do $B $c > log 2>&1; test $? = 4 && grep -q 'half: not a checkpoint' log || exit 1; done;"
        "rm ck/step_00000012/manifest.json; $B info run > log 2>&1 || exit 2; grep -q 'warning: "
        "skipping a damaged checkpoint: .*step_00000012' log && grep -q 'step 8,' log || exit "
        "3; rm ck/step_0000000*/manifest.json; $B info run > log 2>&1; test $? = 4 && grep -q 'all "
        "3 checkpoints are damaged' log");
}

Test(run_places, with_odd_characters_are_found_again)
{
    run("for n in 'ü 漢字' '%s%n' ';a' '#a' ' a ' 'back\\slash' 'a=b' $'inv\\xff'; do rm -rf log;"
        " $B --config $C --run-dir \"$n\" --checkpoint-dir \"$n/ck\" --total-steps 4 > log 2>&1 || "
        "exit 1; $B --config $C --run-dir \"$n/\" --checkpoint-dir \"$n/ck/\" --total-steps 5 "
        "--resume auto > log 2>&1 || exit 2; grep -aq 'resumed .* at step 4' log || exit 3;"
        " $B info \"$n\" | grep -aq 'step 5,' || exit 4; done");
}

Test(run_places, of_files_and_checkpoints_may_be_one_directory)
{
    run("O=\"$B --config $C --run-dir one\"; $O --checkpoint-dir one --total-steps 8 > log || exit "
        "1; $O --checkpoint-dir ./one/ --resume auto > log && grep -q 'at step 8$' log || exit 2;"
        "$O --checkpoint-dir one --total-steps 2 > log || exit 3; arguments=$(sed -n 's/.*to "
        "continue that run: //p' log); $B --config $C $arguments --total-steps 14 > log || exit 4;"
        "grep -q 'at step 12$' log && $B info one | grep -q 'step 2,'");
}

Test(run_places, are_not_made_for_a_checkpoint_that_leaves_nothing_to_train)
{
    run("$T > log; $B --config $C --run-dir new --resume run/checkpoints/latest --total-steps 12 > "
        "log 2>&1; test $? = 2 && grep -q 'step_00000012.* is of step 12, and .* to end after step "
        "12' "
        "log "
        "|| exit 1; test -z \"$(find new -type f)\" || exit 2; $T --resume auto > log");
}

/* Shell functions for runs, $p, whose directory changes while they live. A wait ends the script
 * when it takes 20 s. `endless N` starts a run that ends when it is stopped or N saves in a row
 * failed. */
#define LIVE                                                                                       \
    "wait_for() { for i in $(seq 400); do eval \"$1\" && return; sleep 0.05; done; exit 90; }; "   \
    "trap 'kill -KILL $p 2> /dev/null' EXIT; "                                                     \
    "endless() { $T --total-steps 1000000 --set logging.checkpoint_interval=20 --set "             \
    "logging.checkpoint_keep=2 --set logging.max_failed_saves=$1 > log 2>&1 & p=$!; "              \
    "wait_for 'test -e run/checkpoints/latest'; }; "                                               \
    "stop() { kill -TERM $p; wait $p; test $? = 75 || exit 91; }; "                                \
    "state() { grep -q \"^State:.*[$1]\" /proc/$p/status 2> /dev/null; }; "                        \
    "sums() { find run -type f -exec sha256sum {} + | sort; }; "

/* Another run may have that name by then, whose checkpoints are not this run's to rotate. */
Test(run_places, renamed_during_a_run_stop_its_saves_and_leave_another_run_there_alone)
{
    run(LIVE "endless 3; mv run was;"
             "$T --total-steps 3 --set logging.checkpoint_interval=1 > second || exit 1; wait $p;"
             "test $? = 4 || exit 2; grep -q 'run was renamed while this run writes there: its "
             "lock is .*/was/run.lock now' was/training.log || exit 3;"
             "echo $(ls run/checkpoints) | grep -qx "
             "'latest step_00000001 step_00000002 step_00000003' || exit 4;"
             "! ls -d run/previous* 2> /dev/null || exit 5;"
             "$B info --verify run > log && $B info --verify was > log");
}

/* Rolling back reads the newest checkpoint and rewrites the metrics. If it does, it stops again. */
Test(run_places, renamed_during_a_run_are_not_rolled_back_in)
{
    run(LIVE "ND_FAULT='stop@backward:step=7:rank=0,nan@loss:samples=56-999' $F --config $C "
             "--run-dir $D/run --total-steps 30 --set logging.checkpoint_interval=4 "
             "--set training.max_skipped_steps=1 > log 2>&1 & p=$!; wait_for 'state T'; mv run was;"
             "$T --total-steps 6 --set logging.checkpoint_interval=2 > second || exit 1;"
             "sums > before; wait_for 'kill -CONT $p; ! state TRSD'; wait $p;"
             "test $? = 4 || exit 2; grep -q 'run was renamed' was/training.log || exit 3;"
             "! grep -q 'rolled back' was/training.log || exit 4; sums | cmp - before");
}

Test(run_places, renamed_back_are_saved_into_again)
{
    run(LIVE "endless 1000000; mv run was; wait_for \"grep -q 'was renamed' was/training.log\";"
             "mv was run; wait_for \"tail -n 2 run/training.log | grep -q ' saved '\"; stop;"
             "$B info --verify run > log");
}

Test(run_places, removed_during_a_run_are_made_and_locked_again)
{
    run(LIVE "for what in run run/checkpoints run/run.lock; do rm -rf run; endless 3; rm -rf $what;"
             "wait_for 'test -e run/run.lock -a -e run/checkpoints/run.lock -a -e "
             "run/checkpoints/latest';"
             "$T > second 2>&1; test $? = 2 && grep -q 'is in use by process' second || exit 1;"
             "stop; $B info --verify run > log || exit 2; done");
}

Test(run_places, with_files_of_others_that_are_called_like_a_runs_are_left_as_they_are)
{
    run("refused() { cp -r run before; $T > log 2>&1; test $? = 2 && grep \"$1\" log && rmdir "
        "run/checkpoints; diff -r "
        "before run && rm -r run before || exit 1; };"
        "mkdir -p run/tensorboard; echo mine > run/tensorboard/events.out.tfevents.1; "
        "echo mine > run/tensorboard/notes; refused 'run/tensorboard/notes: event files go here';"
        "mkdir run; echo mine > run/tensorboard; refused 'run/tensorboard: the directory of event';"
        "mkdir run; echo '2026-01-31 23:59:59 INFO mine' > run/training.log; "
        "refused 'run/training.log: this file is not a log of this program';"
        "mkdir run; echo mine > run/snapshot_hosts; refused 'run/snapshot_hosts: this file is not';"
        "$T > log && rm run/config.ini && $T > log && grep -q 'moved   what an earlier' log && "
        "ls run/previous_001/tensorboard/* run/previous_001/training.log || exit 2");
}
