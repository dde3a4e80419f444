/* Steps whose numbers cannot be used: skipped, gone back from, given up. The numbers are injected
 * by nanochat_dist_faulty (src/train/fault_points.h). Step s of these runs reads samples 8s-8 to
 * 8s-1. */
#include "train/health.h"

#include "support/run_files.h"
#include "support/support.h"
#include "train/checkpoint/checkpoint.h"
#include "train/checkpoint/manifest.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *const directory = nd_test_here.directory, *const config = nd_test_here.config;
static char output[16384];

TestSuite(health, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

static void train(int ranks, int expected, const char *fault, const char *run, const char *extra)
{
    static const char launcher[] = "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
                                   "OMP_NUM_THREADS=1 mpirun --oversubscribe -np";
    char launch[256] = "";
    if (ranks > 0)
        snprintf(launch, sizeof launch, "%s %d", launcher, ranks);
    const int code =
        nd_test_shell(output, sizeof output,
                      "ND_FAULT='%s' %s %s/nanochat_dist_faulty --config %s --run-dir %s/%s %s",
                      fault, launch, ND_TEST_PROGRAMS, config, directory, run, extra);
    cr_assert_eq(code, expected, "%s, %d ranks: exit %d, expected %d:\n%s", fault, ranks, code,
                 expected, output);
}

static void says(const char *text)
{
    cr_assert(strstr(output, text) != NULL, "\"%s\" is not in:\n%s", text, output);
}

static int metric(const char *run, const char *key, double values[ND_TEST_STEPS_MAX])
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", directory, run);
    return nd_test_metric(path, key, values);
}

static void assert_same(const char *run, const char *other)
{
    char a[128], b[128], state[65];
    double losses[ND_TEST_STEPS_MAX], others[ND_TEST_STEPS_MAX];
    snprintf(a, sizeof a, "%s/%s", directory, run);
    snprintf(b, sizeof b, "%s/%s", directory, other);
    const int count = nd_test_metric(a, "loss", losses);
    cr_assert_eq(nd_test_metric(b, "loss", others), count);
    for (int i = 0; i < count; i++)
        cr_assert(losses[i] == others[i] || (isnan(losses[i]) && isnan(others[i])),
                  "line %d: %.17g and %.17g", i + 1, losses[i], others[i]);
    strcpy(state, nd_test_state(a));
    cr_assert_eq(strlen(state), 64);
    cr_assert_str_eq(nd_test_state(b), state);
}

/* state_sha256 of one checkpoint of a run. */
static void state_at(const char *run, int step, char state[65])
{
    state[64] = '\0';
    nd_test_shell(state, 65,
                  "sed -n 's/.*\"state_sha256\": \"\\(.*\\)\".*/\\1/p' "
                  "%s/%s/checkpoints/step_%08d/manifest.json | tr -d '\\n'",
                  directory, run, step);
    cr_assert_eq(strlen(state), 64, "%s", state);
}

/* The checkpoint of the step is that of the one before. */
static void assert_skipped(const char *run, int step)
{
    char before[65], after[65];
    state_at(run, step - 1, before);
    state_at(run, step, after);
    cr_assert_str_eq(before, after);
}

Test(health, a_step_with_a_nan_loss_on_one_rank_changes_nothing_and_is_skipped_by_all)
{
    static const char extra[] = "--checkpoint-interval 1 --set logging.checkpoint_keep=0";
    double skipped[ND_TEST_STEPS_MAX], losses[ND_TEST_STEPS_MAX];
    train(0, 0, "nan@loss:samples=38-38", "alone", extra);
    train(4, 0, "nan@loss:samples=38-38", "four", extra);
    says("step 5: the loss of sample 38 on rank 3 is not finite; batch of samples 32 to 39");
    assert_same("alone", "four");
    char newest[128];
    snprintf(newest, sizeof newest, "%s/four", directory);
    says(nd_test_state(newest)); /* the log names the state of each checkpoint */
    assert_skipped("four", 5);
    cr_assert_eq(metric("four", "skipped", skipped), 12);
    metric("four", "loss", losses);
    cr_assert(skipped[3] == 0 && skipped[4] == 1 && skipped[11] == 1);
    cr_assert(isnan(losses[4]) && isfinite(losses[5]));
}

Test(health, a_step_with_a_nan_gradient_is_skipped_too_and_the_tensor_is_named)
{
    static const char extra[] = "--checkpoint-interval 1 --set logging.checkpoint_keep=0";
    train(0, 0, "nan@gradient:samples=33-33", "alone", extra);
    train(2, 0, "nan@gradient:samples=33-33", "two", extra);
    says("step 5: the gradient of blk.0.attn_q.weight is not finite; batch of samples 32 to 39");
    assert_same("alone", "two");
    assert_skipped("two", 5);
}

/* A NaN that is in no rank's gradient comes out of the wire, at one owner. */
Test(health, a_step_with_a_nan_from_a_reduction_is_skipped_like_one_with_a_nan_gradient)
{
    static const char *const variants[] = {"", "--set dist.overlap_grad_reduce=false",
                                           "--set dist.deterministic=off"};
    for (int v = 0; v < 3; v++) {
        char extra[256], injected[32], wire[32];
        snprintf(extra, sizeof extra,
                 "--total-steps 7 --checkpoint-interval 1 --set logging.checkpoint_keep=0 %s",
                 variants[v]);
        snprintf(injected, sizeof injected, "gradient%d", v);
        snprintf(wire, sizeof wire, "wire%d", v);
        train(2, 0, "nan@gradient:samples=33-33", injected, extra);
        train(2, 0, "nan@sum:step=5:rank=1", wire, extra);
        says("step 5: the gradient of ");
        says(" is not finite; batch of samples 32 to 39; 1 in a row, 1 in all");
        assert_same(injected, wire);
        assert_skipped(wire, 5);
    }
}

/* Every matrix gets a new subspace in step 5, and sketches are reduced beside the gradients. */
Test(health, a_nan_in_a_reduced_sketch_does_not_get_into_the_subspace)
{
    static const char extra[] =
        "--checkpoint-interval 1 --set logging.checkpoint_keep=0 "
        "--set training.use_galore=true --set training.galore_rank=8 "
        "--set training.galore_update_freq=1 --set training.optimizer_type=muon";
    double losses[ND_TEST_STEPS_MAX], skipped[ND_TEST_STEPS_MAX];
    train(2, 0, "nan@sketch:step=5:rank=1", "sketch", extra);
    says("step 5: the gradient of blk.");
    assert_skipped("sketch", 5);
    cr_assert_eq(metric("sketch", "loss", losses), 12);
    metric("sketch", "skipped", skipped);
    cr_assert(skipped[11] == 1 && isfinite(losses[11]));
}

/* One matrix gets a new subspace in each step. That of step 5, which is skipped, waits for step 6,
 * and those after it are a step later. */
Test(health, a_new_subspace_due_in_a_skipped_step_comes_with_the_next_update)
{
    static const char extra[] =
        "--checkpoint-interval 1 --set logging.checkpoint_keep=0 "
        "--set training.use_galore=true --set training.galore_rank=8 "
        "--set training.galore_update_freq=100 --set training.optimizer_type=muon %s";
    static const char fault[] = "nan@loss:samples=38-38";
    char more[512];
    snprintf(more, sizeof more, extra, "");
    train(0, 0, "", "good", more);
    train(0, 0, fault, "whole", more);
    snprintf(more, sizeof more, extra, "--epochs 1");
    train(2, 0, fault, "cut", more);
    snprintf(more, sizeof more, extra, "--resume auto");
    train(4, 0, fault, "cut", more);
    assert_same("whole", "cut");
    nd_test_run_scripts(
        "of() { tr -d ' \n' <$1/checkpoints/step_000000$2/manifest.json | tr '{' '\n' |"
        "  grep '\"part\":\"projector' | sed 's/\"file\":[^,]*,//' | sort; };"
        "changed() { of $1 $2 > a; of $1 $3 > b; diff a b | sed -n 's/^> "
        "[^:]*:\\([^,]*\\).*/\\1/p'; };",
        "[ $(changed good 04 05 | wc -l) = 1 ] || exit 1; [ -z \"$(changed cut 04 05)\" ] || exit "
        "2;"
        "[ \"$(changed good 04 05)\" = \"$(changed cut 05 06)\" ] || exit 3;"
        "[ \"$(changed good 10 11)\" = \"$(changed cut 11 12)\" ] || exit 4");
}

/* Steps 6 to 9 are bad, one more than may be skipped; the newest checkpoint is of step 8. */
Test(health, too_many_bad_steps_take_the_run_back_and_past_their_data)
{
    static const char fault[] = "nan@loss:samples=40-71";
    double losses[ND_TEST_STEPS_MAX], numbers[ND_TEST_STEPS_MAX], skipped[ND_TEST_STEPS_MAX];
    train(0, 0, fault, "alone", "");
    says("step_00000008 at step 8, continuing with the data from sample 72");
    train(2, 0, fault, "two", "");
    assert_same("alone", "two");
    cr_assert_eq(metric("two", "step", numbers), 12);
    metric("two", "loss", losses);
    metric("two", "skipped", skipped);
    for (int i = 0; i < 12; i++) {
        cr_assert_eq(numbers[i], i + 1);
        cr_assert_eq(isnan(losses[i]), i >= 5 && i < 8, "step %d: loss %g", i + 1, losses[i]);
    }
    cr_assert_eq(skipped[11], 4);
}

Test(health, consecutive_skips_are_read_under_the_name_of_earlier_versions_too)
{
    size_t size;
    char *text = nd_test_read_file(ND_SOURCE_DIR "/tests/fuzz/corpus/manifest/health.json", &size);
    cr_assert(strstr(text, "\"in_row\": 1") != NULL);
    for (int i = 0; i < 2; i++) {
        nd_checkpoint c = {0};
        ND_ASSERT_OK(nd_manifest_parse(text, size, "manifest.json", &c));
        cr_assert_eq(c.health.consecutive_skips, 1);
        cr_assert_eq(c.health.skipped, 3);
        free(text);
        ND_ASSERT_OK(nd_manifest_format(&c, &text));
        cr_assert(strstr(text, "\"consecutive\": 1") != NULL && !strstr(text, "in_row"));
        size = strlen(text);
        nd_checkpoint_close(&c);
    }
    free(text);
}

/* Cut off after step 8, with three bad steps behind it. */
Test(health, a_run_cut_off_among_bad_steps_goes_on_as_if_it_had_not_been)
{
    static const char fault[] = "nan@loss:samples=40-71";
    train(0, 0, fault, "whole", "");
    train(2, 0, fault, "cut", "--epochs 1");
    train(4, 0, fault, "cut", "--resume auto");
    assert_same("whole", "cut");
}

Test(health, a_run_that_never_gets_better_ends_with_exit_code_6)
{
    train(2, 6, "nan@loss:samples=40-9999", "run", "");
    says("4 steps skipped in a row ([training] max_skipped_steps = 3)");
    says("the run went back 2 times (max_rollbacks = 2)");
}

Test(health, without_a_checkpoint_there_is_nothing_to_go_back_to)
{
    train(0, 6, "nan@loss:samples=0-9999", "run", "");
    says("there is no checkpoint to go back to");
}

Test(health, immediate_updates_skip_a_bad_loss_and_go_back_from_a_bad_gradient)
{
    static const char extra[] = "--set training.grad_clip=0 --set training.micro_batch_size=4 "
                                "--checkpoint-interval 1 --set logging.checkpoint_keep=0";
    char before[65], after[65];
    train(2, 0, "nan@loss:samples=38-38", "loss", extra);
    says("update  each layer as its gradient is ready");
    assert_skipped("loss", 5);
    train(2, 0, "nan@gradient:samples=38-38", "gradient", extra);
    says("step_00000004 at step 4, continuing with the data from sample 40");
    state_at("loss", 4, before);
    state_at("gradient", 4, after);
    cr_assert_str_eq(before, after);
}

Test(health, a_loss_spike_is_skipped_when_asked_for_also_after_a_resume)
{
    static const char fault[] = "spike@loss:samples=160-160";
    double losses[ND_TEST_STEPS_MAX], skipped[ND_TEST_STEPS_MAX];
    train(2, 0, fault, "spike", "--total-steps 24 --set training.loss_spike_zscore=8");
    says("step 21: the loss ");
    says("standard deviations above those of the last 20 steps; batch of samples 160 to 167");
    train(0, 0, fault, "cut", "--total-steps 24 --set training.loss_spike_zscore=8 --epochs 2");
    train(0, 0, fault, "cut", "--total-steps 24 --set training.loss_spike_zscore=8 --resume auto");
    assert_same("spike", "cut");
    train(0, 0, fault, "off", "--total-steps 24");
    cr_assert_eq(metric("off", "skipped", skipped), 24);
    metric("off", "loss", losses);
    cr_assert(skipped[23] == 0 && losses[20] > 10.0);
}

/* The check also passes in steps 4 and 8 before the bit flips. */
Test(health, weights_that_differ_between_ranks_end_the_run_with_the_tensor_and_the_ranks_named)
{
    double steps[ND_TEST_STEPS_MAX];
    train(4, 5, "flip@codes:step=12:rank=2", "run",
          "--total-steps 16 --set dist.replica_check_interval=4 --set training.use_galore=true "
          "--set training.galore_rank=8");
    says("step 12: blk.0.attn_q.weight is not the same on all ranks (rank 0, 1, 3: ");
    says("; rank 2: ");
    says("; 1 tensor differs");
    cr_assert_eq(metric("run", "step", steps), 11);
}

/* Weights that grow a thousandfold a step, and a checkpoint of them. */
Test(health, what_is_not_finite_is_neither_evaluated_nor_sampled_from)
{
    const int code = nd_test_run_script(
        output, sizeof output,
        "$T --set training.optimizer_type=adamw --set training.learning_rate=100 "
        "--set training.weight_decay=10 --set optimizer.cautious_weight_decay=false "
        "--set training.warmup_steps=0 --checkpoint-interval 1 > log 2>&1; test $? = 6 || exit 1; "
        "$B eval --checkpoint run > log 2>&1; test $? = 6 || exit 2; "
        "grep 'the loss is .*nan: the weights hold NaN' log || exit 3; "
        "$B sample --checkpoint run --prompt '' > log 2>&1; test $? = 6 || exit 4; "
        "grep 'logits are not finite' log");
    cr_assert_eq(code, 0, "exit %d: %s", code, output);
}

Test(health, a_score_is_the_distance_from_the_mean_in_standard_deviations)
{
    nd_health h = {0};
    for (int i = 0; i < ND_HEALTH_ENOUGH; i++) {
        cr_assert_eq(nd_health_score(&h, 100.0), 0.0);
        nd_health_end_step(&h, true, i % 2 ? 3.0 : 1.0);
    }
    const double deviation = sqrt((double)ND_HEALTH_ENOUGH / (ND_HEALTH_ENOUGH - 1));
    cr_assert_float_eq(nd_health_score(&h, 6.0), 4.0 / deviation, 1e-12);
    cr_assert_float_eq(nd_health_score(&h, 0.0), -2.0 / deviation, 1e-12);
    for (int i = 0; i < 2 * ND_HEALTH_WINDOW; i++)
        nd_health_end_step(&h, true, 5.0 + i);
    cr_assert_eq(h.recent_count, ND_HEALTH_WINDOW);
    cr_assert_eq(h.recent[ND_HEALTH_WINDOW - 1], 5.0 + 2 * ND_HEALTH_WINDOW - 1);
}
