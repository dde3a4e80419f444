/* Runs with each of Collider's rules. */
#include "support/run_files.h"
#include "support/support.h"

#include <stdio.h>
#include <string.h>

TestSuite(collider_rules, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

static void train(int ranks, const char *name, const char *extra)
{
    char run[128], arguments[512];
    snprintf(run, sizeof run, "%s/%s", nd_test_here.directory, name);
    snprintf(arguments, sizeof arguments, "--set training.use_collider=true %s", extra);
    nd_test_train(ranks, 0, nd_test_here.config, run, arguments);
}

static int metric(const char *name, const char *key, double *values)
{
    char run[128];
    snprintf(run, sizeof run, "%s/%s", nd_test_here.directory, name);
    return nd_test_metric(run, key, values);
}

static const char *state(const char *name)
{
    static char states[2][65];
    static int next;
    char run[128];
    snprintf(run, sizeof run, "%s/%s", nd_test_here.directory, name);
    return strcpy(states[next++ % 2], nd_test_state(run));
}

static void train_as_on_one_rank(const char *extra)
{
    train(0, "one", extra);
    train(2, "two", extra);
    train(4, "four", extra);
    cr_assert_str_eq(state("one"), state("two"));
    cr_assert_str_eq(state("one"), state("four"));
}

Test(collider_rules, a_sample_is_the_same_on_any_number_of_ranks)
{
    train_as_on_one_rank("--set training.collider_rule=sample");
}

Test(collider_rules, the_highest_losses_are_the_same_on_any_number_of_ranks)
{
    train_as_on_one_rank("--set training.collider_rule=loss --set training.collider_threshold=0.9");
}

Test(collider_rules, the_excess_over_a_reference_is_the_same_on_any_number_of_ranks)
{
    char extra[256];
    double kept[ND_TEST_STEPS_MAX];
    train(0, "reference", "--total-steps 2");
    snprintf(extra, sizeof extra,
             "--set training.collider_rule=excess --set training.collider_threshold=1 "
             "--set training.collider_until=1 --set training.collider_reference=%s/reference",
             nd_test_here.directory);
    train_as_on_one_rank(extra);
    const int steps = metric("one", "kept_fraction", kept);
    for (int i = 0; i < steps; i++)
        cr_assert(kept[i] > 0.64 && kept[i] < 0.7, "step %d keeps %g", i + 1, kept[i]);
}

/* Trains a model in `reference` and asserts that a run with it as its reference, and with `keys`,
 * is refused with a message that matches `says`. */
static void check_no_reference(const char *reference, const char *keys, const char *says)
{
    char output[4096], script[1024];
    train(0, reference, "--total-steps 2");
    snprintf(script, sizeof script,
             "$T --set training.use_collider=true --set training.collider_rule=excess "
             "--set training.collider_reference=$D/%s %s > log 2>&1; test $? = 2 || exit 1; "
             "grep 'collider_reference: %s' log",
             reference, keys, says);
    const int code = nd_test_run_script(output, sizeof output, script);
    cr_assert_eq(code, 0, "exit %d: %s", code, output);
}

/* It would be set aside at the first start, and at the next one the run be its own reference. */
Test(collider_rules, a_checkpoint_in_the_place_of_the_runs_own_is_no_reference)
{
    check_no_reference("run", "", ".*step_00000002 lies where this run has its own");
}

Test(collider_rules, a_model_for_shorter_sequences_is_no_reference)
{
    check_no_reference("reference", "--set model.max_seq_len=128 --set training.seq_length=128",
                       ".* is a model for at most 64 tokens .*seq_length = 128");
}

Test(collider_rules, tokens_are_filtered_between_the_parts_of_the_run_that_are_named)
{
    double kept[ND_TEST_STEPS_MAX];
    train(0, "part", "--set training.collider_from=0.25 --set training.collider_until=0.75");
    const int steps = metric("part", "kept_fraction", kept);
    cr_assert_eq(steps, 12);
    for (int i = 0; i < steps; i++)
        if (i < 3 || i >= 9)
            cr_assert_eq(kept[i], 1.0, "step %d", i + 1);
        else
            cr_assert_lt(kept[i], 0.7, "step %d", i + 1);
}
