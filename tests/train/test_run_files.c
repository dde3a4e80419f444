/* What a run leaves, and what the commands that read it say. */
#include "support/run_files.h"
#include "support/support.h"
#include "train/log/crc32c.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *const directory = nd_test_here.directory, *const config = nd_test_here.config;
static char run[128];

static void setup(void)
{
    nd_test_run_setup();
    snprintf(run, sizeof run, "%s/run", directory);
}

TestSuite(run_files, .init = setup, .fini = nd_test_run_teardown);

Test(run_files, every_line_of_the_metrics_has_every_key)
{
    static const char *const keys[] = {"step",
                                       "tokens",
                                       "loss",
                                       "total_loss",
                                       "lr",
                                       "grad_norm",
                                       "tokens_per_sec",
                                       "step_ms",
                                       "data_wait_ms",
                                       "comm_wait_ms",
                                       "comm_busy_ms",
                                       "comm_bytes",
                                       "kept_fraction",
                                       "mfu",
                                       "restarts",
                                       "matrix_state_bytes",
                                       "matrix_weights"};
    nd_test_train(2, 0, config, run, "");
    for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
        double values[ND_TEST_STEPS_MAX];
        cr_assert_eq(nd_test_metric(run, keys[k], values), 12);
        for (int i = 0; i < 12; i++)
            cr_assert(isnan(values[i]) == 0, "line %d has no %s", i + 1, keys[k]);
    }
    double tokens[ND_TEST_STEPS_MAX], bytes[ND_TEST_STEPS_MAX], val[ND_TEST_STEPS_MAX];
    nd_test_metric(run, "tokens", tokens);
    nd_test_metric(run, "comm_bytes", bytes);
    nd_test_metric(run, "val_loss", val);
    for (int i = 0; i < 12; i++) {
        cr_assert_eq(tokens[i], 128.0 * (i + 1));
        cr_assert_gt(bytes[i], 0.0);
        cr_assert_eq(isnan(val[i]) != 0, i != 5 && i != 11);
    }
}

Test(run_files, memory_categories_stand_in_the_metrics)
{
    char path[256];
    nd_test_train(0, 0, config, run, "");
    snprintf(path, sizeof path, "%s/metrics.jsonl", run);
    char *text = nd_test_read_file(path, NULL);
    static const char *const names[] = {
        "\"codes\":", "\"masters\":", "\"gradients\":",   "\"optimizer\":",
        "\"wire\":",  "\"loader\":",  "\"activations\":", "\"rss\":"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        cr_assert(strstr(text, names[i]) != NULL, "no %s", names[i]);
    free(text);
}

Test(run_files, the_log_says_that_recomputing_attention_alone_saves_nothing)
{
    char output[4096];
    cr_assert_eq(nd_test_run_script(
                     output, sizeof output,
                     "alone='--total-steps 1 --set hardware.recompute_attention=true'; "
                     "$T $alone > log && "
                     "grep 'warning: recompute_attention = true saves nothing' log && rm -r run && "
                     "$T $alone --set hardware.gradient_checkpointing=true > log && "
                     "! grep recompute_attention log"),
                 0, "%s", output);
}

Test(run_files, a_last_line_of_metrics_without_its_end_gets_one_when_the_run_resumes)
{
    char output[4096];
    cr_assert_eq(nd_test_run_script(output, sizeof output,
                                    "{ $T --total-steps 4 && truncate -s -1 run/metrics.jsonl && "
                                    "$T --total-steps 6 --resume auto; } > log 2>&1 || { cat log; "
                                    "exit 1; }"),
                 0, "%s", output);
    double steps[ND_TEST_STEPS_MAX];
    cr_assert_eq(nd_test_metric(run, "step", steps), 6);
    for (int i = 0; i < 6; i++)
        cr_assert_eq(steps[i], i + 1.0);
}

Test(run_files, the_saved_config_reads_back_and_trains_the_same)
{
    char saved[256], again[160];
    double first[ND_TEST_STEPS_MAX], second[ND_TEST_STEPS_MAX];
    nd_test_train(0, 0, config, run, "--set training.learning_rate=0.0137");
    snprintf(saved, sizeof saved, "%s/config.ini", run);
    snprintf(again, sizeof again, "%s/again", directory);
    nd_test_train(0, 0, saved, again, "");
    const int steps = nd_test_metric(run, "loss", first);
    cr_assert_eq(nd_test_metric(again, "loss", second), steps);
    cr_assert_eq(memcmp(first, second, (size_t)steps * sizeof *first), 0);
}

Test(run_files, eval_gives_the_loss_the_run_measured_last)
{
    char output[4096], expected[64];
    double val[ND_TEST_STEPS_MAX];
    nd_test_train(0, 0, config, run, "");
    nd_test_metric(run, "val_loss", val);
    snprintf(expected, sizeof expected, "\"val_loss\":%.17g,", val[11]);
    int code = nd_test_shell(output, sizeof output, "%s eval --checkpoint %s --samples 6 --json",
                             ND_BINARY, run);
    cr_assert_eq(code, 0, "%s", output);
    cr_assert(strstr(output, expected) != NULL, "%s lacks %s", output, expected);
    code = nd_test_mpirun(output, sizeof output, 3, "%s eval --checkpoint %s --samples 6 --json",
                          ND_BINARY, run);
    cr_assert_eq(code, 0, "%s", output);
    cr_assert(strstr(output, expected) != NULL, "3 ranks: %s lacks %s", output, expected);
}

Test(run_files, eval_prints_json_whatever_the_directory_is_called)
{
    char output[4096];
    nd_test_train(0, 0, config, run, "");
    const int code = nd_test_shell(output, sizeof output,
                                   "cd %s && mv %s 'a \"run\\' && %s eval --checkpoint 'a \"run\\' "
                                   "--samples 6 --json",
                                   directory, run, ND_BINARY);
    cr_assert_eq(code, 0, "%s", output);
    json_t *object = json_loads(output, 0, NULL);
    cr_assert(object != NULL, "not JSON: %s", output);
    cr_assert(strstr(json_string_value(json_object_get(object, "checkpoint")), "a \"run\\/") !=
                  NULL,
              "%s", output);
    cr_assert_eq(json_integer_value(json_object_get(object, "sequences")), 6);
    json_decref(object);
}

Test(run_files, training_lowers_the_loss_of_the_synthetic_chain)
{
    double losses[ND_TEST_STEPS_MAX];
    nd_test_train(0, 0, config, run,
                  "--total-steps 150 --n-samples 2048 --set training.warmup_steps=10");
    const int steps = nd_test_metric(run, "loss", losses);
    cr_assert_eq(steps, 150);
    cr_assert_gt(losses[0], 4.0); /* ln 64 = 4.16 */
    cr_assert_lt(losses[149], losses[0] - 1.0, "from %g to %g", losses[0], losses[149]);
}

Test(run_files, a_seed_gives_the_same_sample_again)
{
    char first[4096], second[4096], other[4096];
    nd_test_train(0, 0, config, run, "");
    const char *const command = "%s sample --checkpoint %s --max-tokens 20 --seed %d";
    cr_assert_eq(nd_test_shell(first, sizeof first, command, ND_BINARY, run, 1), 0);
    cr_assert_eq(nd_test_shell(second, sizeof second, command, ND_BINARY, run, 1), 0);
    cr_assert_eq(nd_test_shell(other, sizeof other, command, ND_BINARY, run, 2), 0);
    cr_assert_str_eq(first, second);
    cr_assert_str_neq(first, other);
}

Test(run_files, info_verify_checks_every_tensor_of_a_checkpoint)
{
    char output[16384];
    nd_test_train(2, 0, config, run, "");
    const int code = nd_test_shell(output, sizeof output, "%s info --verify %s", ND_BINARY, run);
    cr_assert_eq(code, 0, "%s", output);
    cr_assert(strstr(output, "step 12") != NULL);
    cr_assert(strstr(output, "have their checksums") != NULL);
}

static uint32_t word(const char *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

/* Walks the records of the only event file and returns how many there are; checks
 * both checksums. */
static int count_records(const char *path)
{
    size_t size = 0;
    char *bytes = nd_test_read_file(path, &size);
    int records = 0;
    cr_assert(bytes != NULL);
    for (size_t at = 0; at < size; records++) {
        uint64_t length;
        memcpy(&length, bytes + at, sizeof length);
        cr_assert_eq(word(bytes + at + 8), nd_crc32c_masked(bytes + at, 8));
        cr_assert_leq(at + 16 + length, size);
        cr_assert_eq(word(bytes + at + 12 + length), nd_crc32c_masked(bytes + at + 12, length));
        if (records == 0)
            cr_assert(memmem(bytes, size, "brain.Event:2", 13) != NULL);
        at += 16 + length;
    }
    free(bytes);
    return records;
}

Test(run_files, tensorboard_has_a_checked_record_for_every_step)
{
    char pattern[512], output[512];
    nd_test_train(0, 0, config, run, "");
    snprintf(pattern, sizeof pattern, "ls %s/tensorboard/events.out.tfevents.*", run);
    cr_assert_eq(nd_test_shell(output, sizeof output, "%s", pattern), 0);
    output[strcspn(output, "\n")] = '\0';
    cr_assert_eq(count_records(output), 13);
}

Test(run_files, crc32c_has_the_standard_check_value)
{
    cr_assert_eq(nd_crc32c("123456789", 9), 0xe3069283u);
}
