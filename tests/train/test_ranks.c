/* The same run on any number of ranks. */
#include "support/run_files.h"
#include "support/support.h"

#include <stdio.h>
#include <string.h>

TestSuite(ranks, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

/* Trains on each number of ranks and compares all losses, held-out losses and the checkpointed
 * state with those of the first; no more than ND_TEST_RANKS_MAX from the third on. */
static void compare(const int *sizes, int count, const char *extra)
{
    double expected[ND_TEST_STEPS_MAX], expected_val[ND_TEST_STEPS_MAX];
    char expected_state[65] = "", run[128];
    for (int i = 0; i < count; i++) {
        double losses[ND_TEST_STEPS_MAX], val[ND_TEST_STEPS_MAX];
        if (i > 1 && sizes[i] > ND_TEST_RANKS_MAX)
            continue;
        snprintf(run, sizeof run, "%s/ranks%d", nd_test_here.directory, sizes[i]);
        nd_test_train(sizes[i], 0, nd_test_here.config, run, extra);
        const int steps = nd_test_metric(run, "loss", losses);
        nd_test_metric(run, "val_loss", val);
        cr_assert_eq(steps, 12);
        if (i == 0) {
            memcpy(expected, losses, sizeof losses);
            memcpy(expected_val, val, sizeof val);
            strcpy(expected_state, nd_test_state(run));
            cr_assert_eq(strlen(expected_state), 64);
            continue;
        }
        for (int s = 0; s < steps; s++) {
            cr_assert_eq(losses[s], expected[s],
                         "%d ranks, step %d: loss %.17g, %d ranks had %.17g", sizes[i], s + 1,
                         losses[s], sizes[0], expected[s]);
        }
        cr_assert_eq(val[11], expected_val[11], "%d ranks: held-out loss %.17g, expected %.17g",
                     sizes[i], val[11], expected_val[11]);
        cr_assert_str_eq(nd_test_state(run), expected_state, "%d ranks: another state", sizes[i]);
    }
}

Test(ranks, alone_and_1_2_4_and_8_ranks_train_the_same_to_the_bit)
{
    static const int sizes[] = {0, 1, 2, 4, 8};
    compare(sizes, 5, "--set hardware.precision=bf16");
}

/* One layer of the llama graph has 11 parameters: 9, embedding and last norm. */
Test(ranks, so_do_more_ranks_than_there_are_matrices_to_own)
{
    static const int sizes[] = {0, 12};
    compare(sizes, 2,
            "--set model.arch=llama --set model.num_layers=1 --set training.batch_size=12 "
            "--set logging.eval_samples=12");
}

Test(ranks, so_they_do_with_optimizer_state_in_8_and_4_bits)
{
    static const int sizes[] = {0, 1, 2, 4};
    compare(sizes, 4, "--set training.use_8bit_optim=true --set model.vocab_size=256");
    compare(sizes, 4, "--set optimizer.state_bits=4 --set model.hidden_dim=64");
    compare(sizes, 4,
            "--set optimizer.state_bits=8 --set training.optimizer_type=adamw "
            "--set model.hidden_dim=64");
}

Test(ranks, so_they_do_with_gradients_in_8_bits)
{
    static const int sizes[] = {0, 2, 4};
    compare(sizes, 3,
            "--set hardware.precision=bf16 --set hardware.backward_precision=int8 "
            "--set training.use_collider=true --set training.collider_threshold=0.9");
}

Test(ranks, so_they_do_in_fp32_with_the_llama_graph_and_an_untied_head)
{
    static const int sizes[] = {0, 2, 4};
    compare(
        sizes, 3,
        "--set hardware.precision=fp32 --set model.arch=llama --set model.tie_embeddings=false");
}

/* 24 micro-batches: 24, 12, 8, 6 and 3 a rank, most of them no node of the tree. */
Test(ranks, any_number_that_divides_the_micro_batches_trains_the_same_to_the_bit)
{
    static const int sizes[] = {0, 2, 3, 4, 8};
    compare(sizes, 5, "--set training.batch_size=24 --set hardware.precision=fp32");
}

Test(ranks, several_tokens_ahead_train_the_same_on_any_number_of_ranks)
{
    static const int sizes[] = {0, 2, 4};
    compare(sizes, 3, "--set training.use_mtp=true --set training.mtp_n_tokens=3");
}

Test(ranks, bf16_masters_round_the_same_on_any_number_of_ranks)
{
    static const int sizes[] = {0, 2, 4};
    compare(sizes, 3, "--set optimizer.master_precision=bf16");
}

/* The embedding, and an untied head, have 8 blocks of rows. */
Test(ranks, embedding_and_head_owned_by_rows_train_the_same_as_owned_by_one_rank)
{
    static const int sizes[] = {0, 2, 3, 4};
    const char *shape = "--set model.vocab_size=512 --set model.hidden_dim=64 "
                        "--set training.batch_size=24 --set optimizer.master_precision=bf16 ";
    char keys[512];
    snprintf(keys, sizeof keys, "%s--set optimizer.state_bits=8", shape);
    compare(sizes, 4, keys);
    snprintf(keys, sizeof keys,
             "%s--set model.arch=llama --set model.tie_embeddings=false "
             "--set dist.embedding_sync=int8_delta --set dist.weight_sync=delta",
             shape);
    compare(sizes, 4, keys);
    snprintf(keys, sizeof keys, "%s--set training.grad_clip=0 --set dist.deterministic=world",
             shape);
    compare(sizes, 4, keys);
}

Test(ranks, the_number_of_threads_does_not_change_a_bit)
{
    double one[ND_TEST_STEPS_MAX], two[ND_TEST_STEPS_MAX];
    char run[128];
    snprintf(run, sizeof run, "%s/one", nd_test_here.directory);
    nd_test_train(0, 0, nd_test_here.config, run, "--set hardware.threads=1");
    const int steps = nd_test_metric(run, "loss", one);
    snprintf(run, sizeof run, "%s/two", nd_test_here.directory);
    nd_test_train(0, 0, nd_test_here.config, run, "--set hardware.threads=2");
    cr_assert_eq(nd_test_metric(run, "loss", two), steps);
    cr_assert_eq(memcmp(one, two, (size_t)steps * sizeof *one), 0);
}

Test(ranks, gradient_checkpointing_and_the_synchronous_loader_change_nothing)
{
    double plain[ND_TEST_STEPS_MAX], other[ND_TEST_STEPS_MAX];
    char run[128];
    snprintf(run, sizeof run, "%s/plain", nd_test_here.directory);
    nd_test_train(0, 0, nd_test_here.config, run, "");
    const int steps = nd_test_metric(run, "loss", plain);
    snprintf(run, sizeof run, "%s/other", nd_test_here.directory);
    nd_test_train(0, 0, nd_test_here.config, run,
                  "--set hardware.gradient_checkpointing=true --set training.use_async_loader=off");
    cr_assert_eq(nd_test_metric(run, "loss", other), steps);
    cr_assert_eq(memcmp(plain, other, (size_t)steps * sizeof *plain), 0);
}

Test(ranks, a_batch_that_ranks_cannot_share_is_refused_with_the_reason)
{
    char output[8192], run[128];
    snprintf(run, sizeof run, "%s/refused", nd_test_here.directory);
    const int code = nd_test_mpirun(output, sizeof output, 3, "%s --config %s --run-dir %s",
                                    ND_BINARY, nd_test_here.config, run);
    cr_assert_eq(code, 2, "exit %d: %s", code, output);
    cr_assert(strstr(output, "3 ranks cannot share evenly") != NULL, "%s", output);
}
