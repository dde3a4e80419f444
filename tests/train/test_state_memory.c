/* What optimizer state weighs in a run's own metrics, and that it never lies there in full
 * precision for more than a matrix. */
#include "support/run_files.h"
#include "support/support.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

TestSuite(state_memory, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

/* 2 steps of 2 layers of 256 with feed-forward width 768. */
#define WIDE                                                                                       \
    "--resume none --total-steps 2 --set model.hidden_dim=256 --set training.micro_batch_size=4 "  \
    "--set logging.eval_interval=0 --set logging.eval_samples=1 "                                  \
    "--set logging.checkpoint_interval=0 "

static const char *run(void)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/run", nd_test_here.directory);
    return path;
}

static void train(int ranks, const char *more)
{
    char arguments[1024];
    snprintf(arguments, sizeof arguments, WIDE "%s", more);
    nd_test_train(ranks, 0, nd_test_here.config, run(), arguments);
}

/* A number of the last line of the metrics. */
static double last(const char *key)
{
    double values[ND_TEST_STEPS_MAX];
    return values[nd_test_metric(run(), key, values) - 1];
}

static double memory(const char *category)
{
    char path[256];
    snprintf(path, sizeof path, "%s/metrics.jsonl", run());
    char *text = nd_test_read_file(path, NULL);
    text[strlen(text) - 1] = '\0';
    json_t *line = json_loads(strrchr(text, '\n') + 1, 0, NULL);
    const double bytes = json_number_value(json_object_get(json_object_get(line, "mem"), category));
    cr_assert_gt(bytes, 0.0, "no %s", category);
    json_decref(line);
    free(text);
    return bytes;
}

static double bytes_a_weight(int ranks, const char *more)
{
    train(ranks, more);
    return last("matrix_state_bytes") / last("matrix_weights");
}

Test(state_memory,
     of_matrices_in_the_metrics_is_at_most_1_02_bytes_a_weight_in_8_bits_and_0_57_in_4)
{
    cr_assert_eq(bytes_a_weight(0, ""), 4.0);
    cr_assert_eq(last("matrix_weights"), 2.0 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 768 * 256));
    cr_assert_leq(bytes_a_weight(0, "--set training.use_8bit_optim=true"), 1.02);
    cr_assert_leq(bytes_a_weight(0, "--set optimizer.state_bits=4"), 0.57);
    cr_assert_leq(bytes_a_weight(2, "--set optimizer.state_bits=4"), 0.57);
    cr_assert_lt(last("matrix_weights"), 2.0 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 768 * 256));
}

Test(state_memory, of_matrices_is_at_most_half_of_muons_at_a_quarter_of_the_rank)
{
    const char *const galore = "--set training.use_galore=true --set training.galore_rank=64";
    char more[256];
    cr_assert_leq(bytes_a_weight(0, galore), 2.0);
    snprintf(more, sizeof more, "%s --set training.use_8bit_optim=true", galore);
    cr_assert_leq(bytes_a_weight(0, more), 0.5);
}

/* Eight layers have six more than two. Were all their state decoded at once, anywhere, that would
 * be six times the memory that one matrix more takes. */
Test(state_memory, grows_with_layers_by_the_bytes_of_its_codes_alone)
{
    static const struct {
        const char *keys;
        double most;
    } formats[] = {{"--set training.use_8bit_optim=true", 1.02},
                   {"--set optimizer.state_bits=4", 0.57},
                   {"--set training.optimizer_type=adamw --set optimizer.state_bits=8", 2.04}};
    const double layer = 2 * 256 * 256 + 2 * 128 * 256 + 3 * 768 * 256;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        char more[256];
        double optimizer[2], workspace[2];
        for (int deep = 0; deep < 2; deep++) {
            snprintf(more, sizeof more, "%s --set model.num_layers=%d", formats[i].keys,
                     deep ? 8 : 2);
            train(0, more);
            optimizer[deep] = memory("optimizer");
            workspace[deep] = memory("workspace");
        }
        const double norms = 8.0 * (3 * 256 + 768) + 64 * 16; /* f32, in aligned pieces */
        const double grown = optimizer[1] - optimizer[0];
        cr_assert_leq(grown, 6.0 * (formats[i].most * layer + norms), "%s: %g bytes",
                      formats[i].keys, grown);
        cr_assert_leq(workspace[1], workspace[0] * 1.01, "%s: workspace %g and %g", formats[i].keys,
                      workspace[0], workspace[1]);
    }
}
