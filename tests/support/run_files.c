#include "support/run_files.h"

#include "core/base/close.h"
#include "support/support.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

nd_test_place nd_test_here;

void nd_test_run_setup(void)
{
    snprintf(nd_test_here.directory, sizeof nd_test_here.directory, "%s", nd_test_directory());
    snprintf(nd_test_here.config, sizeof nd_test_here.config, "%s/config.ini",
             nd_test_here.directory);
    nd_test_write_config(nd_test_here.config);
}

int nd_test_run_script(char *output, size_t size, const char *script)
{
    return nd_test_shell(output, size,
                         "B='%s' F='%s/nanochat_dist_faulty' C='%s' D='%s' IO='%s'; export "
                         "OMP_NUM_THREADS=1 OMPI_ALLOW_RUN_AS_ROOT=1 "
                         "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 ASAN_OPTIONS=verify_asan_link_order=0; "
                         "cd $D; T=\"$B --config $C --run-dir $D/run\"; %s",
                         ND_BINARY, ND_TEST_PROGRAMS, nd_test_here.config, nd_test_here.directory,
                         ND_IO_FAULTS, script);
}

void nd_test_run_scripts(const char *setup, const char *script)
{
    static char output[32768], whole[8192];
    snprintf(whole, sizeof whole, "%s %s", setup, script);
    const int code = nd_test_run_script(output, sizeof output, whole);
    cr_assert_eq(code, 0, "exit %d: %s", code, output);
}

void nd_test_run_teardown(void)
{
    nd_test_remove_directory(nd_test_here.directory);
}

int nd_test_metric(const char *run, const char *key, double values[ND_TEST_STEPS_MAX])
{
    ND_AUTOFREE char *line = NULL;
    char path[4096];
    size_t capacity = 0;
    int count = 0;
    snprintf(path, sizeof path, "%s/metrics.jsonl", run);
    ND_CLEANUP(nd_close_file) FILE *file = fopen(path, "r");
    cr_assert(file != NULL, "%s cannot be read", path);
    while (count < ND_TEST_STEPS_MAX && getline(&line, &capacity, file) > 0) {
        json_auto_t *object = json_loads(line, 0, NULL);
        cr_assert(object != NULL, "%s: not JSON: %s", path, line);
        const json_t *value = json_object_get(object, key);
        values[count++] = json_is_number(value) ? json_number_value(value) : NAN;
    }
    return count;
}

const char *nd_test_state(const char *run)
{
    static char state[65];
    char path[4096];
    state[0] = '\0';
    snprintf(path, sizeof path, "%s/checkpoints/latest/manifest.json", run);
    json_auto_t *object = json_load_file(path, 0, NULL);
    const char *text = json_string_value(json_object_get(object, "state_sha256"));
    if (text)
        snprintf(state, sizeof state, "%s", text);
    return state;
}

void nd_test_write_config(const char *path)
{
    static const char text[] = "[model]\nhidden_dim = 32\nnum_layers = 2\nnum_heads = 4\n"
                               "num_kv_heads = 2\nffn_mult = 3\nmax_seq_len = 64\n"
                               "vocab_size = 256\n"
                               "[training]\ntotal_steps = 12\nbatch_size = 8\n"
                               "micro_batch_size = 1\nseq_length = 16\nlearning_rate = 0.02\n"
                               "warmup_steps = 4\n"
                               "[data]\ndataset = synthetic\nn_samples = 64\n"
                               "[logging]\neval_interval = 6\neval_samples = 6\n"
                               "checkpoint_interval = 4\n";
    nd_test_write_file(path, text, sizeof text - 1);
}

void nd_test_train(int ranks, int expected, const char *config, const char *run, const char *extra)
{
    char output[8192];
    int code;
    if (ranks > 0)
        code = nd_test_mpirun(output, sizeof output, ranks, "%s --config %s --run-dir %s %s",
                              ND_BINARY, config, run, extra);
    else
        code = nd_test_shell(output, sizeof output, "%s --config %s --run-dir %s %s", ND_BINARY,
                             config, run, extra);
    cr_assert_eq(code, expected, "%d ranks, %s: exit %d, expected %d:\n%s", ranks, extra, code,
                 expected, output);
}
