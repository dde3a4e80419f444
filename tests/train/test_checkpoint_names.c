/* Names in a directory of checkpoints: which are the program's, and that everything else is left
 * alone. */
#include "support/run_files.h"
#include "support/support.h"
#include "train/checkpoint/checkpoint.h"

#include <stdlib.h>
#include <unistd.h>

static char output[32768];

TestSuite(checkpoint_names, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

static void run(const char *script)
{
    const int code = nd_test_run_script(output, sizeof output, script);
    cr_assert_eq(code, 0, "exit %d: %s", code, output);
}

Test(checkpoint_names, are_step_and_the_digits_the_program_writes_and_nothing_else)
{
    static const char *const others[] = {"step_",
                                         "step_best",
                                         "step_before_new_data",
                                         "step_00000010_good",
                                         "step_10",
                                         "step_0000001",
                                         "step_000000010",
                                         "step_-0000001",
                                         "step_+0000010",
                                         "step_00000010.bak",
                                         "Step_00000010",
                                         "xstep_00000010",
                                         "step_00000010 ",
                                         "step_0000001a",
                                         "step_99999999999999999999"};
    int64_t step = -1;
    cr_assert(nd_checkpoint_name_parse("step_00000010", "", &step));
    cr_assert_eq(step, 10);
    cr_assert(nd_checkpoint_name_parse("step_123456789", "", &step));
    cr_assert_eq(step, 123456789);
    cr_assert(nd_checkpoint_name_parse(".tmp_step_00000003", ND_CHECKPOINT_UNFINISHED, &step));
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        cr_assert_not(nd_checkpoint_name_parse(others[i], "", NULL), "%s", others[i]);
}

Test(checkpoint_names, of_what_was_superseded_may_have_a_number)
{
    cr_assert(nd_checkpoint_name_superseded("superseded_step_00000010"));
    cr_assert(nd_checkpoint_name_superseded("superseded_step_00000010_002"));
    cr_assert_not(nd_checkpoint_name_superseded("superseded_step_00000010_good"));
    cr_assert_not(nd_checkpoint_name_superseded("superseded_step_best"));
    cr_assert_not(nd_checkpoint_name_superseded("superseded_step_00000010_2"));
}

Test(checkpoint_names, are_in_the_order_of_their_numbers)
{
    nd_checkpoint_steps steps;
    run("mkdir -p ck/step_99999999 ck/step_100000000 ck/step_00000005");
    cr_assert_eq(chdir(nd_test_here.directory), 0);
    ND_ASSERT_OK(nd_checkpoint_steps_list("ck", "", &steps));
    cr_assert_eq(steps.count, 3);
    cr_assert_eq(steps.list[0], 5);
    cr_assert_eq(steps.list[2], 100000000);
    free(steps.list);
}

/* A copy, a link and a file beside the run's own, through a resume with rotation and a
 * fresh start. */
Test(checkpoint_names, of_the_user_are_neither_counted_nor_moved_nor_removed)
{
    run("K='--set logging.checkpoint_keep=1'; $T --epochs 1 $K; cd run/checkpoints;"
        "for c in step_best step_before_new_data step_00000008_good superseded_step_mine "
        ".tmp_step_x "
        "step_00000011; do cp -r step_00000008 $c; done; ln -s step_00000008_good step_00000077;"
        "echo mine > step_00000010; ln -s step_best best; mkdir step_7; cd $D;"
        "mine() { ls -A run/checkpoints | grep -v '^step_000000\\(08\\|12\\)$\\|^latest$'; };"
        "mine > before; $T --resume auto $K > log; mine > after; cmp before after || exit 1;"
        "ls run/checkpoints/step_00000008 && exit 2; test -e run/checkpoints/latest/manifest.json "
        "&&"
        "test $(readlink run/checkpoints/latest) = step_00000012 &&"
        "grep -q 'removed .*/step_00000008 ' log && grep -q 'step 8$' log || exit 3;"
        "$T --total-steps 2 > log; ls -A run/checkpoints | grep -v 'step_00000002\\|^latest$' > "
        "after;"
        "grep -v step_00000011 before > left; cmp left after || exit 4;"
        "echo $(ls run/previous_001/checkpoints) | grep -qx 'latest step_00000011 step_00000012'");
}

/* Its name is the program's, so it may be renamed, but never removed. */
Test(checkpoint_names, with_the_users_files_inside_are_not_removed)
{
    run("$T --epochs 1; echo thoughts > run/checkpoints/step_00000004/notes;"
        "$T --resume auto --set logging.checkpoint_keep=1; cat run/checkpoints/step_00000004/notes "
        "&&"
        "! test -e run/checkpoints/step_00000008");
}

Test(checkpoint_names, taken_by_a_file_fail_that_save_alone)
{
    run("mkdir -p run/checkpoints; echo mine > run/checkpoints/step_00000008; $T > log || exit 1;"
        "grep -q 'step_00000008 is in the way' log && cat run/checkpoints/step_00000008 &&"
        "test $(readlink run/checkpoints/latest) = step_00000012");
}

Test(checkpoint_names, of_superseded_steps_are_never_used_again)
{
    run("$T; for i in 1 2; do $T --resume run/checkpoints/step_00000004 > log || exit 1;"
        "grep -q 'moved .*step_00000012' log || exit 2; done; cd run/checkpoints;"
        "echo $(ls -d superseded*) | grep -qx 'superseded_step_00000008 "
        "superseded_step_00000008_002 "
        "superseded_step_00000012 superseded_step_00000012_002'");
}

/* Setting aside may fail at any rename: then later checkpoints are where they were. */
Test(checkpoint_names, stay_as_they_are_where_superseding_fails_half_way)
{
    run("$T --checkpoint-interval 2 --set logging.checkpoint_keep=0 > log; ls -lG --time-style=+ "
        "run/checkpoints > "
        "before;"
        "for n in 1 2 3; do LD_PRELOAD=$IO ND_IO_FAULT=nomove:$n:$D/run/checkpoints/superseded $T "
        "--resume run/checkpoints/step_00000004 > log 2>&1; test $? = 4 || exit 1;"
        "ls -lG --time-style=+ run/checkpoints > after; diff before after || exit 2; done");
}

Test(checkpoint_names, that_latest_leads_to_are_there_whenever_superseding_is_killed)
{
    run("$T > log; for s in 8 12; do cp -r run again; ND_FAULT=kill@supersede:step=$s:rank=0 $F "
        "--config $C --run-dir again --resume again/checkpoints/step_00000004; test $? = 137 || "
        "exit 1;"
        "test -e again/checkpoints/latest/manifest.json || exit 2; $F --config $C --run-dir again "
        "--resume auto || exit 3; rm -r again; done");
}

Test(checkpoint_names, of_a_save_killed_before_latest_moved_are_what_latest_names_after_a_resume)
{
    run("L=run/checkpoints/latest; for s in 8 12; do ND_FAULT=kill@save_link:step=$s:rank=0 $F "
        "--config $C --run-dir run --resume auto --set logging.checkpoint_async=false; test $? = "
        "137 && test $(readlink $L) = step_$(printf %08d $((s - 4))) || exit 1; done;"
        "$T --resume auto || exit 2; test $(readlink $L) = step_00000012");
}

Test(checkpoint_names, called_latest_by_the_user_are_left_alone)
{
    run("mkdir -p run/checkpoints/latest; echo mine > run/checkpoints/latest/notes; $T > log || "
        "exit 1;"
        "cat run/checkpoints/latest/notes && test $(grep -c 'has no .latest' log) = 1 &&"
        "$B info run | grep -q 'step 12,'");
}

Test(checkpoint_names, of_directories_that_cannot_be_listed_are_an_error_and_not_none)
{
    run("$T > log; find run | sort > before; for r in auto none; do"
        " LD_PRELOAD=$IO ND_IO_FAULT=nolisting:1:$D/run/checkpoints $T --resume $r > log 2>&1;"
        " test $? = 4 && grep -q 'cannot list .*/run/checkpoints: Stale file handle' log || exit 1;"
        " find run | sort > after; diff before after || exit 2; done;"
        "LD_PRELOAD=$IO ND_IO_FAULT=nolisting:1:$D/run $T > log 2>&1 && exit 3;"
        "find run | sort > after; diff before after || exit 4;"
        "mv run/checkpoints gone && mv gone/step_00000012 . && ln -s nowhere run/checkpoints;"
        "$T --resume auto > log 2>&1 && exit 5; grep -q 'run/checkpoints' log");
}

Test(checkpoint_names, without_latest_the_newest_whole_step_is_taken_by_every_command)
{
    run("$T > log; rm run/checkpoints/latest; $B info run | grep -q 'step 12,' || exit 1;"
        "truncate -s 9 run/checkpoints/step_00000012/config.ini; ln -s step_00000099 "
        "run/checkpoints/latest; $B info run | grep -q 'step 8,' || exit 2;"
        "$B eval --checkpoint run/checkpoints --samples 2 && $B sample --checkpoint run "
        "--max-tokens 2 "
        "&& $B export --checkpoint run --type f32 --out m.gguf && $B report run --out r || exit 3;"
        "! grep -q 'cannot be read' r/REPORT.md");
}
