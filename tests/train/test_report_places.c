/* Where `report` writes: others' files there, and full disks. */
#include "support/run_files.h"
#include "support/support.h"

static char output[16384];

static void run(const char *script)
{
    cr_assert_eq(nd_test_run_script(output, sizeof output, script), 0, "%s: %s", script, output);
}

static void setup(void)
{
    nd_test_run_setup();
    run("$T --total-steps 2 > log || { cat log; exit 1; }");
}

TestSuite(report_places, .init = setup, .fini = nd_test_run_teardown);

Test(report_places, keep_files_of_others_that_are_called_like_its_own)
{
    run("for name in memory.svg val_loss.svg 01_run_val.dat REPORT.md; do rm -rf out; mkdir out; "
        "echo mine > out/$name; $B report run --out out > log 2>&1; test $? = 2 || exit 1; "
        "grep \"out/$name: this file is not a report\" log || exit 2; "
        "grep mine out/$name && test \"$(ls out)\" = $name || exit 3; done");
}

Test(report_places, keep_files_of_others_that_end_in_tmp)
{
    run("mkdir out; echo mine > out/REPORT.md.tmp; $B report run --out out && $B report run --out "
        "out && grep mine out/REPORT.md.tmp && ls out/memory.svg && test $(ls out/*.tmp | wc -l) = "
        "1");
}

Test(report_places, that_are_full_are_named)
{
    if (nd_test_run_script(output, sizeof output,
                           "mkdir out && mount -t tmpfs -o size=4k tmpfs out") != 0)
        cr_skip_test("no right to mount a small file system here");
    run("$B report run --out out > log 2>&1; x=$?; ls out > left; umount out; cat log; "
        "test $x = 1 || exit 1; grep 'cannot write out/[a-zA-Z0-9_]*.[a-z]*: No space' log || "
        "exit 2; test ! -s left");
}
