/* An earlier run in the same directory: a start that fails or is killed leaves it where it was, and
 * one that succeeds sets it aside whole. */
#include "support/run_files.h"
#include "support/support.h"

/* What all tests here share: an earlier run, and `same`, which compares every file and link with
 * it. */
static const char *const earlier =
    "look() { (cd run; find . -type f -exec sha256sum {} + | sort -k 2; find . -type l -printf '%p "
    "%l\\n'"
    " | sort; find . -type d | sort); };"
    "same() { look > now; diff before now; };"
    "state() { grep state_sha256 $1/latest/manifest.json; };"
    "$T --total-steps 8 > log || exit 99; look > before; state run/checkpoints > state;";

TestSuite(set_aside, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

static void run(const char *script)
{
    nd_test_run_scripts(earlier, script);
}

Test(set_aside, does_not_begin_where_the_start_fails)
{
    run("$T --dataset shards --data-path $D/nowhere; test $? = 3 && same || exit 1;"
        "$T --set hardware.target=cuda; test $? = 2 && same || exit 2;"
        "$T --resume $D/nowhere; test $? = 4 && same || exit 3;"
        "$T --resume auto --set model.hidden_dim=64; test $? = 4 && same || exit 4;"
        "touch file; $T --checkpoint-dir file/below; test $? = 2 && same || exit 5;"
        "mpirun --oversubscribe -np 3 $T; test $? = 2 && same");
}

Test(set_aside, does_not_begin_where_a_directory_cannot_be_written)
{
    run("mkdir ro; mount -t tmpfs -o ro tmpfs ro || exit 77; $T --checkpoint-dir $D/ro; a=$?;"
        "mount --bind run run && mount -o remount,ro,bind run; $T --total-steps 4; b=$?;"
        "umount ro run; same && test $a = 1 && test $b = 1");
}

/* The vocabulary of shards, and a disk that fails at any read of them. */
Test(set_aside, does_not_begin_before_the_first_step_is_done)
{
    run(ND_TEST_MAKE_SHARDS
        "$S --set model.vocab_size=299; test $? = 3 && same || exit 1; n=0;"
        "while :; do n=$((n + 7)); LD_PRELOAD=$IO ND_IO_FAULT=eio:$n:$D/shards/train $S > log 2>&1;"
        " code=$?; grep -q 'moved   what' log && break; test $code = 3 && same || exit 2; done;"
        "test $n -gt 30 && state run/previous_001/checkpoints | cmp - state");
}

Test(set_aside, that_fails_at_any_rename_is_undone)
{
    run("for n in 1 2 3 4 5 6 7; do LD_PRELOAD=$IO ND_IO_FAULT=nomove:$n:$D/run/ $T > log 2>&1;"
        "test $? != 0 && same && grep -q 'cannot move' log || exit 1; done;"
        "LD_PRELOAD=$IO ND_IO_FAULT=nomove:8:$D/run/ $T > log 2>&1; grep -q 'moved   what' log &&"
        "state run/previous_001/checkpoints | cmp - state");
}

/* The rename of checkpoints fails; they stay on their file system. */
Test(set_aside, goes_below_the_checkpoints_where_they_lie_on_another_file_system)
{
    run("LD_PRELOAD=$IO ND_IO_FAULT=apart:1:$D/run/.tmp_previous_001/checkpoints $T > log || exit "
        "1;"
        "state run/checkpoints/previous_001 | cmp - state && test -f "
        "run/previous_001/metrics.jsonl &&"
        "grep -q -- '--checkpoint-dir .*/run/checkpoints/previous_001 --resume auto' log");
}

/* Kills in every state, with checkpoints in the run's directory and elsewhere. */
Test(set_aside, that_is_killed_is_undone_or_completed_by_the_next_start)
{
    run("cp -r run elsewhere; mv elsewhere/checkpoints ck; for where in run elsewhere; do"
        " to=\"--run-dir $D/again\"; from=run; test $where = run || to=\"$to --checkpoint-dir "
        "$D/ck2\";"
        " for at in aside_files:step=0 aside_step:step=0 aside_step:step=1 aside_step:step=2 "
        "aside_moved:step=0 aside_finish:step=0; do rm -rf again ck2; cp -r $where again; cp -r ck "
        "ck2;"
        "  ND_FAULT=kill@$at:rank=0 $F --config $C $to > log 2>&1; test $? = 137 || exit 1;"
        "  test -z \"$(find again ck2 -xtype l)\" || exit 2;"
        "  $F --config $C $to --resume auto > log 2>&1 || { cat log; exit 3; }; held=;"
        "  for ck in again/checkpoints again/previous_001/checkpoints ck2 ck2/previous_001; do"
        "   for s in $ck/step_00000008; do grep -qs \"$(cat state)\" $s/manifest.json && held=$s; "
        "done;"
        "  done; test -n \"$held\" && $B info --verify $held > log || exit 4;"
        "  test -z \"$(find again ck2 -name '.tmp*')\" || exit 5; done; done");
}

Test(set_aside, says_how_to_go_on_with_the_earlier_run)
{
    run("$T --total-steps 4 > log; arguments=$(sed -n 's/.*to continue that run: //p' log);"
        "$B --config $C $arguments --total-steps 12 > log || exit 1; cat log; grep -q 'at step 8$' "
        "log");
}

Test(set_aside, never_uses_a_number_again)
{
    run("mkdir -p run/previous_999 run/previous_001 && touch run/previous_002; for i in 1 2; do"
        " $T --total-steps 2 > log || exit 1; done; test -d run/previous_003/checkpoints &&"
        "test -d run/previous_004/checkpoints && test -f run/previous_002 &&"
        "state run/previous_003/checkpoints | cmp - state");
}

/* Nothing to resume is not nothing there: metrics of steps without a checkpoint are kept. */
Test(set_aside, happens_too_where_resume_auto_finds_no_checkpoint)
{
    run("rm -r run/checkpoints; $T --resume auto --total-steps 2 > log || exit 1;"
        "test $(wc -l < run/previous_001/metrics.jsonl) = 8 && test $(wc -l < run/metrics.jsonl) = "
        "2");
}
