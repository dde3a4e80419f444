/* What is beside the place that a model is exported to, and exports to one place at once. */
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
    run("$T --total-steps 1 > log || { cat log; exit 1; }");
}

TestSuite(export_places, .init = setup, .fini = nd_test_run_teardown);

Test(export_places, files_whose_names_end_in_tmp_are_left_alone)
{
    run("mkdir m.tmp && echo mine > m.tmp/notes && echo mine > m.gguf.tmp && echo mine > t.tmp && "
        "echo some text to learn from > text && "
        "$B export --checkpoint run --format safetensors --out m/ && "
        "$B export --checkpoint run --type f32 --out m.gguf && "
        "$B tokenizer train --input $C --vocab-size 300 --output t && "
        "grep mine m.tmp/notes m.gguf.tmp t.tmp && $B info --verify m && $B info m.gguf && "
        "test \"$(ls -d *.tmp)\" = \"$(printf 'm.gguf.tmp\\nm.tmp\\nt.tmp')\"");
}

Test(export_places, a_failed_export_leaves_nothing_there)
{
    run("mkdir out; for n in 1 2 3 4 5 6 7 8 9; do for type in 'gguf --type f32' safetensors; do "
        "LD_PRELOAD=$IO ND_IO_FAULT=enospc:$n:$D/out $B export --checkpoint run --format $type "
        "--out $D/out/m >> log 2>&1; x=$?; test -z \"$(ls out)\" && test $x = 1 && continue; "
        "test \"$(ls out)\" = m && test $x = 0 -a $n -gt 4 || exit 2; rm -r out/m; done; done; "
        "cat log; grep -q 'cannot write .*out/m: No space left' log && "
        "grep -q 'cannot write .*model.safetensors: No space left' log");
}

Test(export_places, of_two_exports_to_one_place_a_whole_one_stays)
{
    run("for i in 1 2 3 4 5 6; do rm -rf m m.gguf; "
        "$B export --checkpoint run --format safetensors --out m > a 2>&1 & "
        "$B export --checkpoint run --format safetensors --out m > b 2>&1; x=$?; wait $!; y=$?; "
        "cat a b; test $x = 0 -o $y = 0 || exit 1; $B info --verify m || exit 2; "
        "test -e m/config.json -a -e m/generation_config.json || exit 3; "
        "$B export --checkpoint run --type f32 --out m.gguf > a 2>&1 & "
        "$B export --checkpoint run --type f32 --out m.gguf > b 2>&1; x=$?; wait $!; y=$?; "
        "cat a b; test $x = 0 -a $y = 0 || exit 4; $B info --verify m.gguf || exit 5; "
        "test -z \"$(ls -d *.tmp)\" || exit 6; done");
}

/* Neither what a living process writes nor what may be another machine's. */
Test(export_places, what_a_killed_export_left_goes_with_the_next_one)
{
    run("mkdir out; for type in 'gguf --type f32' safetensors; do "
        "LD_PRELOAD=$IO ND_IO_FAULT=kill:4:$D/out $B export --checkpoint run --format $type --out "
        "$D/out/m > log 2>&1; test $? = 137 || exit 1; dead=$(ls out); "
        "live=$(echo $dead | sed \"s/^\\(m.[0-9]\\{10\\}\\).*\\(...\\).tmp$/\\1$$\\2.tmp/\"); "
        "other=$(echo $dead | sed 's/^m.9/m.8/;t;s/^m../m.9/'); [ $dead != $live -a $dead != "
        "$other ] || exit 2; "
        "echo > out/$live; echo > out/$other; echo > out/m.12.tmp; "
        "$B export --checkpoint run --format $type --out $D/out/m || exit 3; "
        "[ \"$(ls out | sort)\" = \"$(printf '%s\\n' m m.12.tmp $live $other | sort)\" ] || "
        "{ ls out; echo $dead $live $other; exit 4; }; rm -r out/*; done");
}
