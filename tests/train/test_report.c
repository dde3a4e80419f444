/* What `report` makes of runs' directories, whole and damaged. The metrics are written here, so
 * that every figure expected is known. */
#include "support/support.h"

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

#define MUON_8BIT "use_mtp = true\nuse_collider = true\nuse_8bit_optim = true"
#define FULL MUON_8BIT "\nuse_galore = true"

typedef struct curve {
    double val_loss[4], optimizer, step_ms, data_wait_ms, grad_norm[4], parameters;
} curve;

static const curve plain = {{5.0, 4.0, 3.0, 2.5}, 8.0e6, 100.0, 1.0, {9.0, 1.0, 2.0, 3.0}, 2e6};

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
            "\"ranks\":2,\"last_step\":4,\"parameters\":%.0f,\"ternary_parameters\":1000000,"
            "\"val_loss\":%.17g,\"val_bpb\":1.5}\n",
            i + 1, 100 * (i + 1), c->val_loss[i] + 0.1, c->grad_norm[i], c->step_ms,
            c->data_wait_ms, c->optimizer, 20000000 + i, c->parameters, c->val_loss[i]);
    write_text(run, "metrics.jsonl", text);
}

static void write_run(const char *run, int seed, const char *training, const curve *c)
{
    write_config(run, seed, training, "");
    write_metrics(run, c);
}

#define E3 "--claims " ND_SOURCE_DIR "/configs/e3/claims.ini"

/* The report of the runs named in `arguments`; the caller frees it. */
static char *report(const char *arguments)
{
    char output[4096];
    const int code = nd_test_shell(output, sizeof output, "cd %s && %s report %s --out out",
                                   directory, ND_BINARY, arguments);
    cr_assert_eq(code, 0, "exit %d: %s", code, output);
    return nd_test_read_file(path_of("out", "REPORT.md"), NULL);
}

#define ASSERT_HAS(text, part)                                                                     \
    cr_assert(strstr((text), (part)) != NULL, "no \"%s\" in:\n%s", part, text)

/* The line of the report that begins with `start` must hold `part`. */
static void assert_line(const char *text, const char *start, const char *part)
{
    const char *line = strstr(text, start);
    cr_assert_not_null(line, "no line \"%s\" in:\n%s", start, text);
    char *copy = strndup(line, strcspn(line, "\n"));
    ASSERT_HAS(copy, part);
    free(copy);
}

/* What the expression says of run "mtp" beside "baseline", through a claim that shows it. */
static void assert_expression(const char *expression, const char *expected)
{
    char claims[1024], row[64];
    snprintf(claims, sizeof claims,
             "[systems]\nmtp = run.setting(\"training.use_mtp\")\n[configurations]\nbaseline =\n"
             "mtp_only = mtp\n[report]\nrules = none\n[claim]\nof mtp_only = >= 0 | any\n"
             "base = baseline\nmeasure = 1\nunit = ratio\ndetails = <{%s:.6g}>\nlacking = none\n",
             expression);
    write_text(".", "claims.ini", claims);
    char *text = report("baseline mtp --claims claims.ini");
    snprintf(row, sizeof row, "<%s>", expected);
    assert_line(text, "| claim | mtp_only | any |", row);
    free(text);
}

Test(report, tokens_to_a_loss_are_read_off_the_line_between_evaluations)
{
    write_run("baseline", 1, "", &plain);
    write_run("mtp", 1, "use_mtp = true", &plain);
    /* three quarters of the way from 4.0 to 3.0 */
    assert_expression("run.tokens_to_loss(3.25)", "275");
    assert_expression("run.tokens_to_loss(4.0)", "200");
    assert_expression("run.tokens_to_loss(6.0)", "100");
    assert_expression("run.tokens_to_loss(2.4)", "never");
    assert_expression("run.tokens_saved(base, 6.0)", "–"); /* at its first evaluation already */
    assert_expression("run.loss_at(250)", "3.5");
    assert_expression("run.loss_at(50)", "–");
}

Test(report, a_curve_that_rises_again_counts_from_its_first_crossing)
{
    const curve bumpy = {{5.0, 3.0, 4.0, 3.0}, 8e6, 100, 1, {1, 1, 1, 1}, 2e6};
    write_run("baseline", 1, "", &plain);
    write_run("mtp", 1, "use_mtp = true", &bumpy);
    assert_expression("run.tokens_to_loss(3.0)", "200");
}

Test(report, an_expression_that_reaches_beyond_runs_is_refused)
{
    static const char *const bad[] = {"run.__class__", "open(1)", "[x for x in (1, 2)]", "1 +"};
    char output[4096];
    write_run("baseline", 1, "", &plain);
    write_run("mtp", 1, "use_mtp = true", &plain);
    assert_expression("1 + 1", "2");
    char *claims = nd_test_read_file(path_of(".", "claims.ini"), NULL);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[2048];
        const char *at = strstr(claims, "measure = 1");
        snprintf(text, sizeof text, "%.*smeasure = %s%s", (int)(at - claims), claims, bad[i],
                 at + strlen("measure = 1"));
        write_text(".", "bad.ini", text);
        cr_assert_eq(nd_test_shell(output, sizeof output,
                                   "cd %s && %s report baseline mtp --claims bad.ini --out out",
                                   directory, ND_BINARY),
                     2, "%s: %s", bad[i], output);
        ASSERT_HAS(output, "claim [claim]");
    }
    free(claims);
    cr_assert_eq(nd_test_shell(output, sizeof output,
                               "cd %s && %s report baseline --claims no.ini --out out", directory,
                               ND_BINARY),
                 2);
    ASSERT_HAS(output, "claims 'no.ini': no readable file; tried");
}

Test(report, data_efficiency_passes_from_fifteen_percent)
{
    /* 2.5 lies half way between 3.0 at 300 and 2.0 at 400 tokens: 350 of 400 */
    const curve less = {{5.0, 4.0, 3.0, 2.0}, 8e6, 100, 1, {1, 1, 1, 1}, 2e6};
    const curve enough = {{4.0, 3.5, 2.5, 2.0}, 8e6, 100, 1, {1, 1, 1, 1}, 2e6};
    write_run("baseline", 1, "", &plain);
    write_run("mtp", 1, "use_mtp = true", &less);
    char *text = report("baseline mtp " E3);
    assert_line(text, "| data efficiency | mtp_only |", "| −12.5 % | **fail** |");
    free(text);
    write_run("mtp", 1, "use_mtp = true", &enough);
    text = report("baseline mtp " E3);
    assert_line(text, "| data efficiency | mtp_only |", "| −25.0 % | pass |");
    free(text);
}

Test(report, a_loss_that_is_never_reached_fails_the_claim)
{
    const curve worse = {{5.0, 4.0, 3.0, 2.6}, 8e6, 100, 1, {1, 1, 1, 1}, 2e6};
    write_run("baseline", 1, "", &plain);
    write_run("mtp", 1, "use_mtp = true", &worse);
    char *text = report("baseline mtp " E3);
    assert_line(text, "| data efficiency | mtp_only |", "| never reached | **fail** |");
    assert_line(text, "| held-out loss | mtp_only |", "| +4.00 % | **fail** |");
    free(text);
}

Test(report, held_out_losses_after_different_numbers_of_tokens_are_not_compared)
{
    write_run("baseline", 1, "", &plain);
    write_run("mtp", 1, "use_mtp = true", &plain);
    write_text("mtp", "metrics.jsonl", "{\"step\":4,\"tokens\":800,\"loss\":2,\"val_loss\":2}\n");
    char *text = report("baseline mtp " E3);
    assert_line(text, "| held-out loss | mtp_only |", "| not measurable |");
    assert_line(text, "| held-out loss | mtp_only |", "different numbers of tokens");
    free(text);
}

Test(report, seeds_are_paired_and_a_claim_holds_when_all_of_them_do)
{
    const curve other_base = {{5.0, 4.0, 3.0, 2.0}, 8e6, 100, 1, {1, 1, 1, 1}, 2e6};
    const curve faster = {{5.0, 4.0, 2.0, 1.0}, 8e6, 200, 1, {1, 1, 1, 1}, 2e6};
    write_run("baseline", 1, "", &plain);
    write_run("baseline_seed_2", 2, "", &other_base);
    write_run("mtp_only", 1, "use_mtp = true", &plain);
    write_run("mtp_only_seed_2", 2, "use_mtp = true", &faster);
    char *text = report("baseline baseline_seed_2 mtp_only mtp_only_seed_2 " E3);
    /* 0 of seed 1, 1 - 300/400 of seed 2 */
    assert_line(text, "| data efficiency | mtp_only |",
                "−12.5 %, mean of 2 (0.0 % … −25.0 %) | **fail** |");
    assert_line(text, "| throughput | mtp_only |", "× 0.750");
    free(text);
}

Test(report, optimizer_memory_is_compared_with_the_baseline_and_with_two_fp32_moments)
{
    curve eighth = plain;
    eighth.optimizer = 1.0e6;
    write_run("baseline", 1, "", &plain);
    write_run("muon_8bit", 1, MUON_8BIT, &eighth);
    char *text = report("baseline muon_8bit " E3);
    assert_line(text, "| optimizer memory, to the baseline | muon_8bit |", "| −87.5 % | pass |");
    /* two ranks, memory that of one: 1 - 1.0e6 / (8 * 2.0e6 / 2) */
    assert_line(text, "| optimizer memory, to AdamW in fp32 | muon_8bit |", "| −87.5 % | pass |");
    /* 1 - 9/16: the loader is no part of it */
    assert_line(text, "| total memory | muon_8bit |", "| −43.8 % | pass |");
    assert_line(text, "| total memory | muon_8bit |", "23.8 → 23.8 MiB"); /* the peak */
    assert_line(text, "| activation memory | full |", "| not measurable | no run of `full`");
    free(text);
}

Test(report, gradient_norms_count_after_warm_up)
{
    curve wild = plain;
    wild.grad_norm[2] = 6.0;
    write_run("baseline", 1, "", &plain); /* 9 in the only step of warm-up */
    write_run("mtp", 1, "use_mtp = true", &wild);
    char *text = report("baseline mtp " E3);
    assert_line(text, "| gradient norm | baseline |", "| 100.00 % | pass |");
    assert_line(text, "| gradient norm | mtp_only |", "| 66.67 % | **fail** |");
    free(text);
}

Test(report, waiting_for_data_and_the_time_that_collider_saves_are_measurable_without_a_gpu)
{
    curve waiting = plain;
    waiting.data_wait_ms = 20.0;
    write_run("baseline", 1, "", &plain);
    write_run("muon_8bit", 1, MUON_8BIT, &waiting);
    char *text = report("baseline muon_8bit " E3);
    assert_line(text, "| computing, not waiting for data | muon_8bit |", "| 80.00 % | **fail** |");
    assert_line(text, "| GPU utilization | muon_8bit |",
                "| not measurable | the metrics hold no utilization");
    assert_line(text, "| Collider | muon_8bit |", "| not measurable | no collider.txt");
    free(text);
    write_text("muon_8bit", "collider.txt",
               "4.46M parameters, 16 x 256 tokens a step\n\n| filtered | kept rows | backward |\n"
               "| 0 % | 1.000 | 200.0 ms | **1.000** | 700.0 ms | **1.000** |\n"
               "| 35 % | 0.650 | 134.4 ms | **0.672** | 552.4 ms | **0.770** |\n");
    text = report("baseline muon_8bit " E3);
    assert_line(text, "| Collider | muon_8bit |", "| −32.8 % | **fail** |");
    assert_line(text, "(4.46M parameters, 16 x 256 tokens a step)", "200.0 → 134.4 ms");
    free(text);
}

Test(report, configurations_are_told_apart_by_the_systems_that_are_on)
{
    static const char *const galore = "use_mtp = true\nuse_collider = true\nuse_galore = true";
    write_run("a", 1, "", &plain);
    write_run("b", 1, "use_mtp = true", &plain);
    write_run("c", 1, MUON_8BIT, &plain);
    write_run("d", 1, galore, &plain);
    write_run("e", 1, FULL, &plain);
    write_run("f", 1, FULL, &plain);
    write_config("f", 1, FULL, "gradient_checkpointing = true");
    write_run("g", 1, "use_mtp = true\nuse_collider = true", &plain);
    write_config("g", 1, "use_mtp = true\nuse_collider = true", "[optimizer]\nstate_bits = 4\n");
    write_run("full_seed_7", 1, FULL, &plain);
    write_run("fullest", 1, FULL, &plain);
    char *text = report("a b c d e f g full_seed_7 fullest " E3);
    char *losses = strstr(text, "## Loss");
    assert_line(losses, "| `a` |", "| baseline |");
    assert_line(losses, "| `b` |", "| mtp_only |");
    assert_line(losses, "| `c` |", "| muon_8bit |");
    assert_line(losses, "| `d` |", "| galore2 |");
    assert_line(losses, "| `e` |", "| other |");
    assert_line(losses, "| `f` |", "| full |");
    assert_line(losses, "| `g` |", "| muon_4bit |");
    assert_line(losses, "| `full_seed_7` |", "| full |"); /* by its name */
    assert_line(losses, "| `fullest` |", "| other |");
    ASSERT_HAS(text, "taken for `full` by its name: its systems are not those");
    free(text);
}

/* A directory with what `plan` prints of so many parameters with so much of optimizer state. */
static void write_plan(const char *run, const char *training, const char *hardware, int millions,
                       int optimizer)
{
    char text[1024];
    write_config(run, 1, training, hardware);
    snprintf(text, sizeof text,
             "%d.00M parameters, 100.00M of them ternary; 2048 tokens a step on 1 rank\n\n"
             "memory (MiB)     rank 0   fullest (rank 0)\n  codes            700.0     700.0\n"
             "  masters         5000.0    5000.0\n  optimizer       %d.0   99999.0\n"
             "  activations      100.0     100.0\n  loader            20.0      20.0\n"
             "  sum             9986.9    9986.9\n  beside these: the program\n",
             millions, optimizer);
    write_text(run, "plan.txt", text);
}

Test(report, claims_of_large_models_are_read_off_plans_and_others_off_runs)
{
    write_run("baseline", 1, "", &plain);
    write_run("full", 1, FULL, &plain); /* as much state as the baseline */
    write_config("full", 1, FULL, "gradient_checkpointing = true");
    write_plan("baseline_3b", "", "", 3000, 12000);
    write_plan("full_3b", FULL, "gradient_checkpointing = true", 3000, 600);
    write_plan("full_196m", FULL, "gradient_checkpointing = true", 196, 60);
    char *text = report("baseline full baseline_3b full_3b full_196m " E3);
    assert_line(text, "| throughput | full |", "× 1.000"); /* no plan tells it */
    assert_line(text, "| optimizer memory, to the baseline | full |", "| −95.0 % | pass |");
    assert_line(text, "| weight memory | full |", "| 1.99 B/parameter | pass |");
    /* (700 + 5000 + 600 + 100 + 20) MiB */
    assert_line(text, "| 3B in 12.6 GB | full |", "| 6.73 GB | pass |");
    assert_line(text, "| 7B on 24 GB | full |", "| not measurable |");
    assert_line(text, "| held-out loss | full |", "| 0.00 % | pass |");
    assert_line(strstr(text, "## Memory"), "| `full_3b` |", "| 3000.000 M | 700.00 (");
    cr_assert_null(strstr(strstr(text, "## Loss"), "| `full_3b` | full |"));
    free(text);
    text = report("baseline full " E3);
    assert_line(text, "| optimizer memory, to the baseline | full |", "| 0.0 % | **fail** |");
    free(text);
}

Test(report, a_cut_last_line_is_left_out_and_said)
{
    size_t size;
    write_run("run", 1, "", &plain);
    char *metrics = nd_test_read_file(path_of("run", "metrics.jsonl"), &size);
    nd_test_write_file(path_of("run", "metrics.jsonl"), metrics, size - 30);
    char *text = report("run");
    ASSERT_HAS(text, "the last line of metrics.jsonl is cut off");
    ASSERT_HAS(text, "did not finish: ended after step 3 of 4");
    ASSERT_HAS(text, "**not finished**");
    free(metrics);
    free(text);
}

Test(report, missing_keys_and_missing_files_are_said_and_not_fatal)
{
    write_text("bare", "metrics.jsonl",
               "{\"step\":1,\"loss\":5}\nnonsense\n{\"step\":2,\"loss\":4}\n");
    write_text("died", "command.txt", "nanochat_dist --config x.ini\n# ended with 2 after 0 s\n");
    char *text = report("bare died");
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
    static const char *const pictures[] = {"val_loss", "val_loss_time", "train_loss",
                                           "memory",   "optimizer",     "loss_memory"};
    write_run("baseline", 1, "", &plain);
    write_run("it's 100% \"mtp\" <&", 1, "use_mtp = true", &plain);
    curve large = plain;
    large.parameters = 200000000;
    write_run("few_steps", 1, "", &large);
    char *text = report("baseline 'it'\\''s 100% \"mtp\" <&' few_steps " E3);
    ASSERT_HAS(text, "## Claims");
    ASSERT_HAS(text, "| data efficiency | mtp_only | 15–20 % fewer tokens");
    ASSERT_HAS(text, "Other than in `baseline`: use_mtp = true.");
    for (size_t i = 0; i < sizeof pictures / sizeof *pictures; i++) {
        char name[64], output[512];
        snprintf(name, sizeof name, "%s.svg", pictures[i]);
        ASSERT_HAS(text, name);
        char *svg = nd_test_read_file(path_of("out", name), NULL);
        /* This picture has a mark for each configuration. */
        cr_assert_null(strstr(svg, "few_steps"));
        ASSERT_HAS(svg, i == 5 ? "mtp_only" : "it's 100% \"mtp\" &lt;&amp;");
        free(svg);
        cr_assert_eq(nd_test_shell(output, sizeof output,
                                   "python3 -c 'import sys, xml.dom.minidom; "
                                   "xml.dom.minidom.parse(sys.argv[1])' %s",
                                   path_of("out", name)),
                     0, "%s: %s", name, output);
    }
    free(text);
    text = report("baseline 'it'\\''s 100% \"mtp\" <&'");
    cr_assert_null(strstr(text, "## Claims")); /* whoever compares own runs claims nothing */
    ASSERT_HAS(text, "## Tokens to equal held-out loss");
    free(text);
}

Test(report, runs_that_differ_by_their_seed_alone_are_one_curve_and_one_row_of_memory)
{
    curve higher = plain;
    higher.val_loss[3] = 2.7;
    write_run("one", 1, "", &plain);
    write_run("two", 2, "", &higher);
    char *text = report("one two");
    char *svg = nd_test_read_file(path_of("out", "val_loss.svg"), NULL);
    ASSERT_HAS(svg, ">one, mean of 2<");
    cr_assert_null(strstr(svg, ">two<"));
    ASSERT_HAS(text, "The same with other seeds: `two`.");
    ASSERT_HAS(strstr(text, "## Memory"), "| `one` |");
    cr_assert_null(strstr(strstr(text, "## Memory"), "| `two` |"));
    free(svg);
    free(text);
    write_run("two", 1, "", &higher); /* the same seed, as on other ranks: compared */
    text = report("one two");
    svg = nd_test_read_file(path_of("out", "val_loss.svg"), NULL);
    ASSERT_HAS(svg, ">two<");
    ASSERT_HAS(strstr(text, "## Memory"), "| `two` |");
    free(svg);
    free(text);
}

Test(report, without_python_the_command_says_so)
{
    char output[4096];
    write_run("run", 1, "", &plain);
    const int code =
        nd_test_shell(output, sizeof output, "cd %s && PATH=/nowhere %s report run --out out",
                      directory, ND_BINARY);
    cr_assert_eq(code, 2, "%s", output);
    ASSERT_HAS(output, "report needs python3");
}

Test(report, works_where_the_program_is_installed)
{
    char output[4096];
    write_run("run", 1, "", &plain);
    const int code =
        nd_test_shell(output, sizeof output,
                      "cmake --install $(dirname %s) --prefix %s/prefix >/dev/null && cd %s && "
                      "prefix/bin/nanochat_dist report run --claims claims.ini --out out",
                      ND_BINARY, directory, directory);
    cr_assert_eq(code, 0, "%s", output);
    ASSERT_HAS(output, "out/REPORT.md: 1 run");
}

/* Trains by a configuration of these lines, and returns the report. */
static char *train_and_report(const char *training, const char *options)
{
    char output[8192];
    write_config(".", 1, training, "[data]\ndataset = synthetic\nn_samples = 64\n");
    cr_assert_eq(nd_test_shell(output, sizeof output, "%s --config %s --run-dir %s %s", ND_BINARY,
                               path_of(".", "config.ini"), path_of("run", NULL), options),
                 0, "%s", output);
    return report("run");
}

Test(report, a_real_run_is_read_whole)
{
    char *text = train_and_report("batch_size = 4\nmicro_batch_size = 1", "");
    ASSERT_HAS(text, "| `run` | other | 1 | 4 | 0.000 M |");
    ASSERT_HAS(text, "| finished |");
    assert_line(strstr(text, "## Speed"), "| `run` |", "| `run` | 1 |");
    /* fp32 momentum, in the checkpoint and in memory */
    assert_line(strstr(text, "Optimizer state alone"), "| `run` |", "| 4.0000 | 4.0000 |");
    ASSERT_HAS(text, "**`run`**.\n\n```sh"); /* no notes */
    free(text);
}

Test(report, matrices_of_blocks_that_predict_further_tokens_count_with_their_state)
{
    char *text = train_and_report(
        "batch_size = 4\nmicro_batch_size = 1\nuse_mtp = true\nmtp_form = sequential", "");
    assert_line(strstr(text, "Optimizer state alone"), "| `run` |", "| 4.0000 | 4.0000 |");
    free(text);
}

Test(report, finds_the_checkpoints_where_the_run_was_told_to_put_them)
{
    char options[128];
    snprintf(options, sizeof options, "--checkpoint-dir %s", path_of("elsewhere", NULL));
    char *text = train_and_report("batch_size = 4\nmicro_batch_size = 1", options);
    assert_line(strstr(text, "Optimizer state alone"), "| `run` |", "| 4.0000 | 4.0000 |");
    free(text);
}
