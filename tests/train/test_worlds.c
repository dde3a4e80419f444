/* From any number of ranks to any other. */
#include "support/run_files.h"
#include "support/support.h"

#include <stdio.h>
#include <string.h>

enum { STEPS = 6, SAVED_AT = 3 };

static const int worlds[] = {1, 2, 3, 4, 8};

TestSuite(worlds, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

static void train(int ranks, const char *runs)
{
    static char output[16384];
    const int code = nd_test_mpirun(output, sizeof output, ranks, "%s/ranks_train %s %s",
                                    ND_TEST_PROGRAMS, nd_test_here.config, runs);
    cr_assert_eq(code, 0, "%d ranks, %s: exit %d: %s", ranks, runs, code, output);
}

/* A run on each number of ranks saves after step 3; each is continued on each number of ranks. */
static void from_each_to_each(const char *keys)
{
    char run[128], runs[2048], state[65];
    double whole[ND_TEST_STEPS_MAX], losses[ND_TEST_STEPS_MAX];
    const char *here = nd_test_here.directory;
    nd_test_shell(NULL, 0,
                  "printf '[training]\\ntotal_steps = %d\\nbatch_size = 24\\nmicro_batch_size = "
                  "1\\nseq_length = 16\\nwarmup_steps = 2\\n%s[model]\\nhidden_dim = 32\\n"
                  "num_layers = 1\\nnum_heads = 4\\nnum_kv_heads = 2\\nffn_mult = 3\\nmax_seq_len "
                  "= 16\\nvocab_size = 256\\n[data]\\ndataset = synthetic\\nn_samples = 96\\n"
                  "[logging]\\ncheckpoint_interval = %d\\neval_interval = 0\\neval_samples = 4\\n"
                  "tensorboard = false\\n' > %s",
                  STEPS, keys, SAVED_AT, nd_test_here.config);
    for (int w = 0; w < 5; w++) {
        snprintf(runs, sizeof runs, "%s/from%d", here, worlds[w]);
        train(worlds[w], runs);
    }
    snprintf(run, sizeof run, "%s/from1", here);
    cr_assert_eq(nd_test_metric(run, "loss", whole), STEPS);
    strcpy(state, nd_test_state(run));
    cr_assert_eq(strlen(state), 64);
    for (int to = 0; to < 5; to++) {
        runs[0] = '\0';
        for (int from = 0; from < 5; from++) {
            snprintf(run, sizeof run, "%s/from%d_to%d", here, worlds[from], worlds[to]);
            nd_test_shell(NULL, 0, "cp -a %s/from%d %s && rm -r %s/checkpoints/step_%08d", here,
                          worlds[from], run, run, STEPS);
            snprintf(runs + strlen(runs), sizeof runs - strlen(runs), "%s ", run);
        }
        train(worlds[to], runs);
    }
    for (int from = 0; from < 5; from++)
        for (int to = 0; to < 5; to++) {
            snprintf(run, sizeof run, "%s/from%d_to%d", here, worlds[from], worlds[to]);
            cr_assert_eq(nd_test_metric(run, "loss", losses), STEPS);
            for (int i = 0; i < STEPS; i++)
                cr_assert(losses[i] == whole[i], "%d to %d ranks, step %d: %.17g and %.17g",
                          worlds[from], worlds[to], i + 1, losses[i], whole[i]);
            nd_test_metric(run, "restarts", losses);
            cr_assert(losses[SAVED_AT - 1] == 0 && losses[STEPS - 1] == 1, "%s did not resume",
                      run);
            cr_assert_str_eq(nd_test_state(run), state, "%d to %d ranks: another state",
                             worlds[from], worlds[to]);
        }
}

Test(worlds, a_run_goes_from_any_number_of_ranks_to_any_other_with_the_same_bits)
{
    from_each_to_each("use_8bit_optim = true\\nuse_galore = true\\ngalore_rank = "
                      "8\\ngalore_update_freq = 2\\n");
}
