/* Checkpoints that a run removes while another program reads them. */
#include "support/run_files.h"
#include "support/support.h"

#include <stdio.h>

static char output[16384];

TestSuite(live_checkpoints, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

/* `during COMMAND` runs it, stopped where the fault says, and calls `change N` at each stop. */
static void run(const char *script)
{
    static char text[8192];
    snprintf(text, sizeof text,
             "$T --set logging.checkpoint_keep=9 > log || { cat log; exit 90; }; mv run whole;"
             "during() { $F \"$@\" > log 2>&1 & p=$!; n=0; while kill -0 $p 2> gone; do"
             " case $(cut -d' ' -f3 /proc/$p/stat 2> gone) in T) n=$((n + 1)); change $n;"
             " kill -CONT $p;; Z) break;; esac; sleep 0.02; done; wait $p; };"
             "newest() { ln -sfn step_0000000$1 run/checkpoints/latest; };"
             "fresh() { rm -rf run; cp -r whole run; newest 4; };"
             "export OMP_NUM_THREADS=1; %s",
             script);
    cr_assert_eq(nd_test_run_script(output, sizeof output, text), 0, "%s: %s", script, output);
}

Test(live_checkpoints, that_are_removed_give_way_to_the_newest)
{
    run("change() { test $1 = $at && rm -r run/checkpoints/step_00000004 && newest 8; };"
        "for ND_FAULT in stop@checkpoint_open:step=0:rank=0 stop@checkpoint_read:step=3:rank=0; do "
        "export ND_FAULT; for at in 1 2; do for c in eval 'export --type f32 --out m' 'export "
        "--format safetensors --out s'; do fresh; rm -rf s m; during $c --checkpoint run || "
        "{ cat log; exit 1; }; test $at = 2 || ! test -e run/checkpoints/step_00000004 || exit 2; "
        "case $at$c in 1export*) grep -q 'exported .*step_00000008 to' log || exit 3;; esac; done; "
        "done; done");
}

Test(live_checkpoints, that_are_removed_again_are_named_and_why)
{
    run("change() { rm -r run/checkpoints/step_0000000$((4 * $1)); newest $((4 * $1 + 4)); };"
        "export ND_FAULT=stop@checkpoint_read:step=3:rank=0;"
        "for c in eval 'export --type f32 --out m'; do fresh; during $c --checkpoint run;"
        " test $? = 4 && grep 'step_00000008: removed while it was read, as a run' log || "
        "{ cat log; exit 1; }; done; ! test -e m; fresh;"
        "during info --verify run; test $? = 4 && grep 'step_00000004: removed while it was' log");
}
