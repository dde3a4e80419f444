/* What `report` makes of runs' directories, whole and damaged. The metrics are written here, so that
 * every figure expected is known. */
#include "support/support.h"
#include "train/report/report.h"
#include "train/report/report_claims.h"
#include "train/report/report_measures.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory[64];

static void setup(void)
{
    strcpy(directory, nd_test_directory());
}

static void teardown(void)
{
    nd_test_remove_directory(directory);
}

TestSuite(report, .init = setup, .fini = teardown);

static const char *path_of(const char *run, const char *file)
{
    static char paths[8][160];
    static int next;
    char *path = paths[next++ & 7];
    snprintf(path, sizeof paths[0], "%s/%s%s%s", directory, run, file ? "/" : "", file ? file : "");
    return path;
}

static void write_text(const char *run, const char *file, const char *text)
{
    mkdir(path_of(run, NULL), 0777);
    nd_test_write_file(path_of(run, file), text, strlen(text));
}

/* A configuration of 4 steps of 100 tokens with these lines in [training]. */
static void write_config(const char *run, int seed, const char *training, const char *hardware)
{
    char text[1024];
    snprintf(text, sizeof text,
             "[model]\nhidden_dim = 32\nnum_layers = 2\nnum_heads = 4\nnum_kv_heads = 2\n"
             "max_seq_len = 64\nvocab_size = 64\n[training]\ntotal_steps = 4\nwarmup_steps = 1\n"
             "seq_length = 16\nseed = %d\n%s\n[hardware]\n%s\n",
             seed, training, hardware);
    write_text(run, "config.ini", text);
}

static void write_log(const char *run)
{
    write_text(run, "training.log",
               "2026-01-31 23:59:58 batch   8 sequences x 16 tokens in 8 micro-batches, over 2 "
               "ranks (mpi)\n2026-01-31 23:59:59 step 4/4  loss 3.0\n"
               "2026-02-01 00:00:00 done    4 steps, 0.00M tokens\n");
}

typedef struct curve {
    double val_loss[4], optimizer, step_ms, data_wait_ms, grad_norm[4];
} curve;

static const curve plain = {{5.0, 4.0, 3.0, 2.5}, 8.0e6, 100.0, 1.0, {9.0, 1.0, 2.0, 3.0}};

static void write_metrics(const char *run, const curve *c)
{
    char text[4096];
    size_t used = 0;
    for (int i = 0; i < 4; i++)
        used += (size_t)snprintf(
            text + used, sizeof text - used,
            "{\"step\":%d,\"tokens\":%d,\"loss\":%.17g,\"grad_norm\":%.17g,\"tokens_per_sec\":1,"
            "\"step_ms\":%.17g,\"data_wait_ms\":%.17g,\"comm_wait_ms\":0,\"comm_bytes\":10,"
            "\"kept_fraction\":1,\"mem\":{\"codes\":1000000,\"masters\":4000000,\"optimizer\":%.0f,"
            "\"activations\":3000000,\"loader\":5,\"rss\":%d,\"peak\":25000000},\"restarts\":0,"
            "\"val_loss\":%.17g,"
            "\"val_bpb\":1.5}\n",
            i + 1, 100 * (i + 1), c->val_loss[i] + 0.1, c->grad_norm[i], c->step_ms,
            c->data_wait_ms, c->optimizer, 20000000 + i, c->val_loss[i]);
    write_text(run, "metrics.jsonl", text);
}

static void write_run(const char *run, int seed, const char *training, const curve *c)
{
    write_config(run, seed, training, "");
    write_metrics(run, c);
    write_log(run);
}

static nd_report read_runs(const char *first, const char *second, const char *third)
{
    const char *names[] = {first, second, third};
    const char *paths[3];
    int count = 0;
    nd_report report;
    while (count < 3 && names[count]) {
        paths[count] = path_of(names[count], NULL);
        count++;
    }
    ND_ASSERT_OK(nd_report_read(paths, count, &report));
    return report;
}

static const nd_report_claim *claim_of(const nd_report *report, const char *topic,
                                       nd_report_role role)
{
    static nd_report_claim claims[ND_REPORT_CLAIMS_MAX];
    const int count = nd_report_claims(report, claims);
    for (int i = 0; i < count; i++)
        if (strcmp(claims[i].topic, topic) == 0 && claims[i].role == role)
            return &claims[i];
    cr_assert(false, "no claim of %s", topic);
    return NULL;
}

/* The report as text; the caller frees it. */
static char *report_text(const char *arguments, int expected, char *output, size_t size)
{
    const int code = nd_test_shell(output, size, "cd %s && %s report %s --out out", directory,
                                   ND_BINARY, arguments);
    cr_assert_eq(code, expected, "exit %d: %s", code, output);
    return nd_test_read_file(path_of("out", "REPORT.md"), NULL);
}

#define ASSERT_HAS(text, part)                                                                     \
    cr_assert(strstr((text), (part)) != NULL, "no \"%s\" in:\n%s", part, text)

Test(report, tokens_to_a_loss_are_read_off_the_line_between_evaluations)
{
    double tokens;
    write_run("run", 1, "", &plain);
    nd_report report = read_runs("run", NULL, NULL);
    const nd_report_run *run = &report.runs[0];
    cr_assert_eq(nd_report_tokens_to_loss(run, 3.25, &tokens), ND_CROSSING_FOUND);
    cr_assert_float_eq(tokens, 275.0, 1e-9); /* three quarters of the way from 4.0 to 3.0 */
    cr_assert_eq(nd_report_tokens_to_loss(run, 4.0, &tokens), ND_CROSSING_FOUND);
    cr_assert_float_eq(tokens, 200.0, 1e-9);
    cr_assert_eq(nd_report_tokens_to_loss(run, 6.0, &tokens), ND_CROSSING_AT_FIRST);
    cr_assert_eq(tokens, 100.0);
    cr_assert_eq(nd_report_tokens_to_loss(run, 2.4, &tokens), ND_CROSSING_NEVER);
    cr_assert(isinf(tokens) != 0);
    cr_assert_float_eq(nd_report_loss_at(run, 250.0), 3.5, 1e-12);
    cr_assert(isnan(nd_report_loss_at(run, 50.0)) != 0);
    nd_report_destroy(&report);
}

Test(report, a_curve_that_rises_again_counts_from_its_first_crossing)
{
    double tokens;
    const curve bumpy = {{5.0, 3.0, 4.0, 3.0}, 8e6, 100, 1, {1, 1, 1, 1}};
    write_run("run", 1, "", &bumpy);
    nd_report report = read_runs("run", NULL, NULL);
    nd_report_tokens_to_loss(&report.runs[0], 3.0, &tokens);
    cr_assert_float_eq(tokens, 200.0, 1e-9);
    nd_report_destroy(&report);
}

Test(report, data_efficiency_passes_from_fifteen_percent)
{
    /* 2.5 lies half way between 3.0 at 300 and 2.0 at 400 tokens: 350 of 400 */
    const curve less = {{5.0, 4.0, 3.0, 2.0}, 8e6, 100, 1, {1, 1, 1, 1}};
    const curve enough = {{4.0, 3.5, 2.5, 2.0}, 8e6, 100, 1, {1, 1, 1, 1}};
    write_run("baseline", 1, "", &plain);
    write_run("mtp", 1, "use_mtp = true", &less);
    nd_report report = read_runs("baseline", "mtp", NULL);
    const nd_report_claim *claim = claim_of(&report, "data efficiency", ND_REPORT_MTP_ONLY);
    cr_assert_float_eq(claim->value, 0.125, 1e-12);
    cr_assert_eq(claim->verdict, ND_VERDICT_FAIL);
    cr_assert_str_eq(claim->measured, "−12.5 %");
    nd_report_destroy(&report);
    write_run("mtp", 1, "use_mtp = true", &enough);
    report = read_runs("baseline", "mtp", NULL);
    claim = claim_of(&report, "data efficiency", ND_REPORT_MTP_ONLY);
    cr_assert_float_eq(claim->value, 0.25, 1e-12);
    cr_assert_eq(claim->verdict, ND_VERDICT_PASS);
    nd_report_destroy(&report);
}

Test(report, a_loss_that_is_never_reached_fails_the_claim)
{
    const curve worse = {{5.0, 4.0, 3.0, 2.6}, 8e6, 100, 1, {1, 1, 1, 1}};
    write_run("baseline", 1, "", &plain);
    write_run("mtp", 1, "use_mtp = true", &worse);
    nd_report report = read_runs("baseline", "mtp", NULL);
    const nd_report_claim *claim = claim_of(&report, "data efficiency", ND_REPORT_MTP_ONLY);
    cr_assert_eq(claim->verdict, ND_VERDICT_FAIL);
    cr_assert_str_eq(claim->measured, "never reached");
    claim = claim_of(&report, "held-out loss", ND_REPORT_MTP_ONLY);
    cr_assert_float_eq(claim->value, 0.04, 1e-12);
    cr_assert_eq(claim->verdict, ND_VERDICT_FAIL);
    nd_report_destroy(&report);
}

Test(report, held_out_losses_after_different_numbers_of_tokens_are_not_compared)
{
    write_run("baseline", 1, "", &plain);
    write_run("mtp", 1, "use_mtp = true", &plain);
    write_text("mtp", "metrics.jsonl", "{\"step\":4,\"tokens\":800,\"loss\":2,\"val_loss\":2}\n");
    nd_report report = read_runs("baseline", "mtp", NULL);
    const nd_report_claim *claim = claim_of(&report, "held-out loss", ND_REPORT_MTP_ONLY);
    cr_assert_eq(claim->verdict, ND_VERDICT_NOT_MEASURABLE);
    ASSERT_HAS(claim->details, "different numbers of tokens");
    nd_report_destroy(&report);
}

Test(report, seeds_are_paired_and_their_median_decides)
{
    const curve other_base = {{5.0, 4.0, 3.0, 2.0}, 8e6, 100, 1, {1, 1, 1, 1}};
    const curve faster = {{5.0, 4.0, 2.0, 1.0}, 8e6, 200, 1, {1, 1, 1, 1}};
    const char *paths[4] = {"baseline", "baseline_seed_2", "mtp_only", "mtp_only_seed_2"};
    write_run(paths[0], 1, "", &plain);
    write_run(paths[1], 2, "", &other_base);
    write_run(paths[2], 1, "use_mtp = true", &plain);
    write_run(paths[3], 2, "use_mtp = true", &faster);
    for (int i = 0; i < 4; i++)
        paths[i] = path_of(paths[i], NULL);
    nd_report report;
    ND_ASSERT_OK(nd_report_read(paths, 4, &report));
    const nd_report_claim *claim = claim_of(&report, "data efficiency", ND_REPORT_MTP_ONLY);
    /* 0 of seed 1, 1 - 300/400 of seed 2 */
    cr_assert_float_eq(claim->value, 0.125, 1e-12);
    ASSERT_HAS(claim->measured, "median of 2 (0.0 % … −25.0 %)");
    claim = claim_of(&report, "throughput", ND_REPORT_MTP_ONLY);
    cr_assert_float_eq(claim->value, 0.75, 1e-12);
    nd_report_destroy(&report);
}

Test(report, optimizer_memory_is_compared_with_the_baseline_and_with_two_fp32_moments)
{
    curve eighth = plain;
    eighth.optimizer = 1.0e6;
    write_run("baseline", 1, "", &plain);
    write_run("muon_8bit", 1, "use_mtp = true\nuse_8bit_optim = true", &eighth);
    nd_report report = read_runs("baseline", "muon_8bit", NULL);
    const nd_report_claim *claim =
        claim_of(&report, "optimizer memory, to the baseline", ND_REPORT_MUON_8BIT);
    cr_assert_float_eq(claim->value, 0.875, 1e-12);
    cr_assert_eq(claim->verdict, ND_VERDICT_PASS);
    claim = claim_of(&report, "optimizer memory, to AdamW in fp32", ND_REPORT_MUON_8BIT);
    /* the log says two ranks, and memory is that of one */
    const double share = (double)report.runs[1].parameters / 2.0;
    cr_assert_float_eq(claim->value, 1.0 - 1.0e6 / (8.0 * share), 1e-12);
    claim = claim_of(&report, "total memory", ND_REPORT_MUON_8BIT);
    cr_assert_float_eq(claim->value, 1.0 - 9.0 / 16.0, 1e-12); /* the loader is no part of it */
    cr_assert_eq(nd_report_largest(&report.runs[0], ND_REPORT_FIELD(rss)), 25000000.0);
    claim = claim_of(&report, "activation memory", ND_REPORT_FULL);
    cr_assert_eq(claim->verdict, ND_VERDICT_NOT_MEASURABLE);
    ASSERT_HAS(claim->details, "no run of `full`");
    nd_report_destroy(&report);
}

Test(report, gradient_norms_count_after_warm_up)
{
    curve wild = plain;
    wild.grad_norm[2] = 6.0;
    write_run("baseline", 1, "", &plain); /* 9 in the only step of warm-up */
    write_run("mtp", 1, "use_mtp = true", &wild);
    nd_report report = read_runs("baseline", "mtp", NULL);
    cr_assert_eq(claim_of(&report, "gradient norm", ND_REPORT_BASELINE)->value, 1.0);
    const nd_report_claim *claim = claim_of(&report, "gradient norm", ND_REPORT_MTP_ONLY);
    cr_assert_float_eq(claim->value, 2.0 / 3.0, 1e-12);
    cr_assert_eq(claim->verdict, ND_VERDICT_FAIL);
    nd_report_destroy(&report);
}

Test(report, utilisation_of_a_gpu_is_not_measurable_and_waiting_for_data_is)
{
    curve waiting = plain;
    waiting.data_wait_ms = 20.0;
    write_run("baseline", 1, "", &plain);
    write_run("muon_8bit", 1, "use_8bit_optim = true", &waiting);
    nd_report report = read_runs("baseline", "muon_8bit", NULL);
    const nd_report_claim *claim =
        claim_of(&report, "computing, not waiting for data", ND_REPORT_MUON_8BIT);
    cr_assert_float_eq(claim->value, 0.8, 1e-12);
    cr_assert_eq(claim->verdict, ND_VERDICT_FAIL);
    claim = claim_of(&report, "GPU utilisation", ND_REPORT_MUON_8BIT);
    cr_assert_eq(claim->verdict, ND_VERDICT_NOT_MEASURABLE);
    cr_assert_gt(strlen(claim->details), 10);
    nd_report_destroy(&report);
}

Test(report, configurations_are_told_apart_by_the_systems_that_are_on)
{
    nd_config config;
    nd_config_defaults(&config);
    cr_assert_eq(nd_report_role_of_config(&config), ND_REPORT_BASELINE);
    config.training.use_mtp = true;
    cr_assert_eq(nd_report_role_of_config(&config), ND_REPORT_MTP_ONLY);
    config.training.use_collider = true;
    config.optimizer.state_bits = ND_STATE_BITS_8;
    cr_assert_eq(nd_report_role_of_config(&config), ND_REPORT_MUON_8BIT);
    config.training.use_galore = true;
    cr_assert_eq(nd_report_role_of_config(&config), ND_REPORT_OTHER);
    config.hardware.gradient_checkpointing = true;
    cr_assert_eq(nd_report_role_of_config(&config), ND_REPORT_FULL);
    config.hardware.gradient_checkpointing = false;
    config.optimizer.state_bits = ND_STATE_BITS_32;
    cr_assert_eq(nd_report_role_of_config(&config), ND_REPORT_GALORE2);
    cr_assert_eq(nd_report_role_of_name("full_seed_7"), ND_REPORT_FULL);
    cr_assert_eq(nd_report_role_of_name("fullest"), ND_REPORT_OTHER);
}

Test(report, a_step_done_again_after_a_restart_replaces_the_first)
{
    write_run("run", 1, "", &plain);
    write_text(
        "run", "metrics.jsonl",
        "{\"step\":1,\"loss\":5,\"restarts\":0}\n{\"step\":2,\"loss\":4,\"restarts\":0}\n"
        "{\"step\":3,\"loss\":3,\"restarts\":0}\n{\"step\":2,\"loss\":4.5,\"restarts\":1}\n");
    nd_report report = read_runs("run", NULL, NULL);
    cr_assert_eq(report.runs[0].count, 2);
    cr_assert_eq(report.runs[0].steps[1].loss, 4.5);
    ASSERT_HAS(report.runs[0].notes, "resumed before step 2 (restart 1)");
    nd_report_destroy(&report);
}

Test(report, a_cut_last_line_is_left_out_and_said)
{
    char output[4096], *metrics;
    size_t size;
    write_run("run", 1, "", &plain);
    metrics = nd_test_read_file(path_of("run", "metrics.jsonl"), &size);
    nd_test_write_file(path_of("run", "metrics.jsonl"), metrics, size - 30);
    write_text("run", "training.log", "step 3/4  loss 3.0\n");
    char *text = report_text("run", 0, output, sizeof output);
    ASSERT_HAS(text, "the last line of metrics.jsonl is cut off");
    ASSERT_HAS(text, "did not finish: ended after step 3 of 4");
    ASSERT_HAS(text, "**not finished**");
    free(metrics);
    free(text);
}

Test(report, missing_keys_and_missing_files_are_said_and_not_fatal)
{
    char output[4096];
    write_text("bare", "metrics.jsonl",
               "{\"step\":1,\"loss\":5}\nnonsense\n{\"step\":2,\"loss\":4}\n");
    write_text("died", "command.txt", "nanochat_dist --config x.ini\n# ended with 2 after 0 s\n");
    char *text = report_text("bare died", 0, output, sizeof output);
    ASSERT_HAS(text, "metrics.jsonl has no `grad_norm`");
    ASSERT_HAS(text, "1 lines of metrics.jsonl are not JSON objects with a step");
    ASSERT_HAS(text, "no config.ini");
    ASSERT_HAS(text, "| `bare` | other | – | 2 | – M | 4.0000 | – |");
    ASSERT_HAS(text, "no metrics.jsonl");
    ASSERT_HAS(text, "# ended with 2 after 0 s");
    free(text);
}

Test(report, claims_and_pictures_stand_in_the_report_of_the_five)
{
    static const char *const pictures[] = {"val_loss", "val_loss_time", "train_loss", "memory"};
    char output[4096];
    write_run("baseline", 1, "", &plain);
    write_run("it's 100% \"mtp\"", 1, "use_mtp = true", &plain);
    char *text = report_text("baseline 'it'\\''s 100% \"mtp\"'", 0, output, sizeof output);
    ASSERT_HAS(text, "## Claims");
    ASSERT_HAS(text, "| data efficiency | mtp_only | 15–20 % fewer tokens");
    ASSERT_HAS(text, "Other than in `baseline`: use_mtp = true.");
    const bool gnuplot = nd_test_shell(output, sizeof output, "command -v gnuplot") == 0;
    for (int i = 0; i < 4; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s.svg", pictures[i]);
        char *svg = nd_test_read_file(path_of("out", name), NULL);
        cr_assert_eq(svg != NULL, gnuplot, "%s", name);
        if (svg)
            ASSERT_HAS(svg, "</svg>");
        free(svg);
    }
    free(text);
}

Test(report, without_gnuplot_the_report_says_so_and_keeps_the_scripts)
{
    char output[4096];
    write_run("run", 1, "", &plain);
    const int code =
        nd_test_shell(output, sizeof output, "cd %s && PATH=/nowhere %s report run --out out",
                      directory, ND_BINARY);
    cr_assert_eq(code, 0, "%s", output);
    char *text = nd_test_read_file(path_of("out", "REPORT.md"), NULL);
    ASSERT_HAS(text, "gnuplot is not installed");
    cr_assert(strstr(text, "![") == NULL);
    cr_assert_eq(access(path_of("out", "memory.gp"), F_OK), 0);
    cr_assert_eq(access(path_of("out", "memory.svg"), F_OK), -1);
    free(text);
}

Test(report, a_real_run_is_read_whole)
{
    char output[8192];
    write_config(".", 1, "batch_size = 4\nmicro_batch_size = 1",
                 "[data]\ndataset = synthetic\nn_samples = 64\n");
    cr_assert_eq(nd_test_shell(output, sizeof output, "%s --config %s --run-dir %s", ND_BINARY,
                               path_of(".", "config.ini"), path_of("run", NULL)),
                 0, "%s", output);
    nd_report report = read_runs("run", NULL, NULL);
    const nd_report_run *run = &report.runs[0];
    cr_assert_eq(run->count, 4);
    cr_assert_eq(run->ranks, 1);
    cr_assert(run->finished);
    cr_assert(run->notes == NULL, "%s", run->notes);
    cr_assert_eq(run->matrix_state_bytes, 4.0 * (double)run->matrix_parameters);
    cr_assert_eq(nd_report_last(run, ND_REPORT_FIELD(matrix_state_bytes)), run->matrix_state_bytes);
    cr_assert_eq(nd_report_last(run, ND_REPORT_FIELD(matrix_weights)),
                 (double)run->matrix_parameters);
    cr_assert_gt(nd_report_memory(&report, run, "optimizer"), run->state_bytes - 1.0);
    nd_report_destroy(&report);
}

Test(report, matrices_of_blocks_that_predict_further_tokens_count_with_their_state)
{
    char output[8192];
    write_config(".", 1,
                 "batch_size = 4\nmicro_batch_size = 1\nuse_mtp = true\nmtp_form = sequential",
                 "[data]\ndataset = synthetic\nn_samples = 64\n");
    cr_assert_eq(nd_test_shell(output, sizeof output, "%s --config %s --run-dir %s", ND_BINARY,
                               path_of(".", "config.ini"), path_of("run", NULL)),
                 0, "%s", output);
    nd_report report = read_runs("run", NULL, NULL);
    const nd_report_run *run = &report.runs[0];
    cr_assert_eq(run->matrix_state_bytes, 4.0 * (double)run->matrix_parameters);
    nd_report_destroy(&report);
}

Test(report, finds_the_checkpoints_where_the_run_was_told_to_put_them)
{
    char output[8192];
    write_config(".", 1, "batch_size = 4\nmicro_batch_size = 1",
                 "[data]\ndataset = synthetic\nn_samples = 64\n");
    cr_assert_eq(nd_test_shell(output, sizeof output,
                               "%s --config %s --run-dir %s --checkpoint-dir %s", ND_BINARY,
                               path_of(".", "config.ini"), path_of("run", NULL),
                               path_of("elsewhere", NULL)),
                 0, "%s", output);
    nd_report report = read_runs("run", NULL, NULL);
    const nd_report_run *run = &report.runs[0];
    cr_assert_eq(run->matrix_state_bytes, 4.0 * (double)run->matrix_parameters);
    nd_report_destroy(&report);
}
