/* Counts so large that sums or products of them overflow. */
#include "support/run_files.h"
#include "support/support.h"
#include "train/checkpoint/checkpoint.h"
#include "train/checkpoint/manifest.h"

#include <stdlib.h>

static char output[16384];

static void run(const char *script)
{
    cr_assert_eq(nd_test_run_script(output, sizeof output, script), 0, "%s: %s", script, output);
}

TestSuite(large_counts, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

Test(large_counts, of_epochs_are_no_limit)
{
    run("$T --epochs 1e15 --total-steps 5 --set data.n_samples=1e6 > log || { cat log; exit 1; }; "
        "test $(wc -l < run/metrics.jsonl) = 5 || exit 2; "
        "$T --resume auto --epochs 9007199254740992 --total-steps 7 --set data.n_samples=1e6 > log "
        "|| "
        "{ cat log; exit 3; }; test $(wc -l < run/metrics.jsonl) = 7");
}

Test(large_counts, of_epochs_end_where_the_data_does)
{
    run("$T --epochs 1 --total-steps 500 --set data.n_samples=41 > log || { cat log; exit 1; }; "
        "test $(wc -l < run/metrics.jsonl) = 6 || exit 2; " /* 8 sequences a step */
        "grep 'warning: epochs = 1 ends the run after step 6, before total_steps = 500' log");
}

Test(large_counts, of_warmup_steps_are_compared_with_where_the_data_ends)
{
    run("$T --epochs 1 --total-steps 500 --set training.warmup_steps=40 --set data.n_samples=41 "
        "> log || { cat log; exit 1; }; "
        "grep 'warning: warmup_steps = 40 is more than the run.s 6 steps' log");
}

Test(large_counts, of_tokens_are_refused)
{
    run("$T --n-samples 9007199254740992 --set model.max_seq_len=4096 --set "
        "training.seq_length=4096 --set training.batch_size=1 > log 2>&1; test $? = 2 || exit 1; "
        "grep 'n_samples = 9007199254740992 sequences of seq_length = 4096 are more' log");
}

static void assert_refused(int64_t step, int64_t tokens, int64_t next_sample, const char *name)
{
    nd_checkpoint c = {.step = step, .tokens = tokens, .next_sample = next_sample}, back = {0};
    char *text;
    ND_ASSERT_OK(nd_manifest_format(&c, &text));
    ND_ASSERT_FAILS(nd_manifest_parse(text, strlen(text), "m", &back), ND_ECHECKPOINT, name);
    free(back.tensors);
    free(back.files);
    free(text);
}

Test(large_counts, of_a_manifest_are_refused)
{
    assert_refused(1, 1, INT64_MAX, "m: \"next_sample\" is 9223372036854775807; expected 0 to");
    assert_refused(1, INT64_MAX, 1, "m: \"tokens\" is");
    assert_refused(-1, 1, 1, "m: \"step\" is -1");
}
