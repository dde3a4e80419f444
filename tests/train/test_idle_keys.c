/* Keys that change nothing in a run are said at its start. */
#include "support/run_files.h"
#include "support/support.h"

#include <stdio.h>
#include <string.h>

TestSuite(idle_keys, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

/* The run logs the warning, or, if it is NULL, none. */
static void expect(const char *keys, const char *warning)
{
    static char output[16384];
    char script[2048];
    snprintf(script, sizeof script, "$T --resume none --total-steps 10 %s", keys);
    const int code = nd_test_run_script(output, sizeof output, script);
    cr_assert_eq(code, 0, "%s: exit %d: %s", keys, code, output);
    if (warning)
        cr_assert(strstr(output, warning) != NULL, "%s: no '%s' in %s", keys, warning, output);
    else
        cr_assert(strstr(output, "warning:") == NULL, "%s: %s", keys, output);
}

Test(idle_keys, a_round_longer_than_the_run_is_named)
{
    expect("--set dist.sync_every=11", "warning: sync_every = 11 is more than the run's 10 steps");
    expect("--set dist.sync_every=10", NULL);
    expect("--set dist.workers=2 --set dist.sync_every=100 --epochs 1",
           "warning: sync_every = 100 is more than the run's 8 steps");
}

Test(idle_keys, collider_that_filters_nothing_is_named)
{
    expect("--set training.use_collider=true --set training.collider_from=0.91 "
           "--set training.collider_until=1",
           "warning: use_collider = true filters nothing: none of the run's 10 steps lies between "
           "collider_from = 0.91 and collider_until = 1");
    expect("--set training.use_collider=true --set training.collider_until=0",
           "collider_from = 0 and collider_until = 0");
    expect("--set training.use_collider=true --set training.seq_length=2",
           "warning: use_collider = true filters nothing: collider_sparsity = 0.35 of a "
           "micro-batch's 2 tokens is less than one");
    expect("--set training.use_collider=true --set training.collider_from=0.9 "
           "--set training.collider_until=1",
           NULL);
    expect("--set training.use_collider=true --set training.seq_length=3", NULL);
}

Test(idle_keys, further_tokens_that_are_never_trained_are_named)
{
    expect("--set training.use_mtp=true --set training.mtp_until=0",
           "warning: use_mtp = true trains no further tokens: mtp_weight = 0.2, mtp_until = 0");
    expect("--set training.use_mtp=true --set training.mtp_weight=0",
           "warning: use_mtp = true trains no further tokens: mtp_weight = 0, mtp_until = 1");
    expect("--set training.use_mtp=true --set training.seq_length=3",
           "warning: mtp_n_tokens = 4 is more than seq_length = 3");
    expect("--set training.use_mtp=true --set training.seq_length=4", NULL);
}
