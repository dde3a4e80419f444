/* Gradient reduction that overlaps the backward pass gives the bits of a run without overlap. */
#include "support/run_files.h"
#include "support/support.h"

#include <stdio.h>
#include <string.h>

/* Races need few steps, a checkpoint after step 4 and an evaluation after step 6, and no run
 * without overlap to compare with. */
#if defined __SANITIZE_THREAD__
enum { STEPS = 7, COMPARES = 0 };
#else
enum { STEPS = 12, COMPARES = 1 };
#endif

TestSuite(overlap, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

/* Losses, norms and the checkpointed state with and without, on this many ranks. */
static void compare(int ranks, const char *extra)
{
    static const char *const keys[] = {"loss", "total_loss", "grad_norm", "val_loss"};
    char runs[2][128], arguments[512], state[65];
    for (int on = COMPARES ? 0 : 1; on < 2; on++) {
        snprintf(runs[on], sizeof runs[on], "%s/%d-%s", nd_test_here.directory, ranks,
                 on ? "on" : "off");
        snprintf(arguments, sizeof arguments,
                 "--set dist.overlap_grad_reduce=%s --total-steps %d %s", on ? "true" : "false",
                 STEPS, extra);
        nd_test_train(ranks, 0, nd_test_here.config, runs[on], arguments);
    }
    for (size_t k = 0; COMPARES && k < sizeof keys / sizeof *keys; k++) {
        double without[ND_TEST_STEPS_MAX], with[ND_TEST_STEPS_MAX];
        const int steps = nd_test_metric(runs[0], keys[k], without);
        cr_assert_eq(steps, STEPS);
        cr_assert_eq(nd_test_metric(runs[1], keys[k], with), steps);
        cr_assert_eq(memcmp(without, with, (size_t)steps * sizeof *with), 0,
                     "%d ranks, %s: %s differs", ranks, extra, keys[k]);
    }
    snprintf(state, sizeof state, "%s", nd_test_state(runs[COMPARES ? 0 : 1]));
    cr_assert_eq(strlen(state), 64);
    cr_assert_str_eq(nd_test_state(runs[1]), state, "%d ranks, %s: another state", ranks, extra);
}

Test(overlap, changes_no_bit_on_1_2_and_4_ranks)
{
    compare(1, "");
    compare(2, "");
    compare(4, "");
}

/* 6 micro-batches a rank, whose sums are no node of the tree: several slots are sent. */
Test(overlap, changes_no_bit_where_a_rank_has_several_slots)
{
    compare(4, "--set training.batch_size=24");
}

Test(overlap, changes_no_bit_with_gradients_that_galore_projects)
{
    compare(2, "--set training.use_galore=true --set training.galore_rank=8 "
               "--set training.galore_update_freq=3 --set hardware.gradient_checkpointing=true");
    compare(2, "--set training.use_galore=true --set training.galore_rank=8 "
               "--set training.galore_update_freq=3 --set optimizer.galore_residual=0.5");
}

Test(overlap, changes_no_bit_with_several_tokens_ahead_and_filtered_ones)
{
    compare(2, "--set training.use_mtp=true --set training.mtp_form=sequential "
               "--set training.use_collider=true --set training.micro_batch_size=2");
}

/* The order of additions between two ranks is the same every time. */
Test(overlap, changes_no_bit_where_each_rank_keeps_one_sum)
{
    compare(2, "--set dist.deterministic=off --set training.batch_size=16");
}

Test(overlap, changes_no_bit_where_layers_are_updated_in_the_backward_pass)
{
    const char *const immediate =
        "--set training.grad_clip=0 --set training.batch_size=4 --set model.num_layers=5";
    char with[384];
    compare(2, "--set training.grad_clip=0 --set training.batch_size=2");
    compare(4, immediate);
    snprintf(with, sizeof with,
             "%s --set training.use_galore=true --set training.galore_rank=8 "
             "--set training.galore_update_freq=3 --set dist.group_ranks=2",
             immediate);
    compare(4, with);
}

/* Weights long enough to be sent while others are updated: before the end of the update, and of the
 * backward pass. */
Test(overlap, changes_no_bit_where_weights_are_sent_as_they_are_updated)
{
    static const char *const extras[] = {
        "",
        "--set dist.weight_sync=delta --set dist.embedding_sync=int8_delta "
        "--set dist.deterministic=off",
        "--set training.grad_clip=0 --set training.batch_size=2 --set training.micro_batch_size=1",
        "--set training.grad_clip=0 --set training.batch_size=2 --set training.micro_batch_size=1 "
        "--set dist.weight_sync=delta --set training.use_galore=true --set training.galore_rank=8"};
    static const char large[] = "--set model.arch=llama --set model.tie_embeddings=false "
                                "--set model.vocab_size=4096 --set model.hidden_dim=64";
    char output[8192], extra[384];
    for (size_t i = 0; i < sizeof extras / sizeof *extras; i++) {
        snprintf(extra, sizeof extra, "%s %s", large, extras[i]);
        compare(2, extra);
        const int code = nd_test_mpirun(
            output, sizeof output, 2,
            "env ND_FAULT=kill@weights_begun:step=3:rank=1 %s/nanochat_dist_faulty --config %s "
            "--run-dir %s/killed %s",
            ND_TEST_PROGRAMS, nd_test_here.config, nd_test_here.directory, extra);
        cr_assert_eq(code, 137, "%s: sends nothing early: exit %d: %s", extra, code, output);
        nd_test_shell(output, sizeof output, "rm -rf %s/*-on %s/*-off %s/killed",
                      nd_test_here.directory, nd_test_here.directory, nd_test_here.directory);
    }
}

/* While weights are on their way rank 1 fails and takes its time to end; rank 0, which is late,
 * fetches them meanwhile. */
Test(overlap, a_rank_that_fails_while_weights_are_sent_says_why)
{
    char output[8192];
    const int code = nd_test_mpirun(
        output, sizeof output, 2,
        "env ND_FAULT=slow@update:step=3:rank=0,fail@weights_begun:step=3:rank=1,"
        "slower@torn_down:step=3:rank=1 %s/nanochat_dist_faulty --config %s --run-dir %s/failed "
        "--set model.vocab_size=4096 --set model.hidden_dim=64",
        ND_TEST_PROGRAMS, nd_test_here.config, nd_test_here.directory);
    cr_assert_eq(code, 1, "exit %d: %s", code, output);
    cr_assert(strstr(output, "rank 1: error: no memory, as the test wants it") != NULL, "%s",
              output);
}

/* What a reduction beside the backward pass was about is not lost when the step is skipped. */
Test(overlap, goes_on_after_a_step_that_is_skipped)
{
    char run[2][128], output[8192];
    double losses[2][ND_TEST_STEPS_MAX];
    for (int on = 0; on < 2; on++) {
        snprintf(run[on], sizeof run[on], "%s/skipped-%d", nd_test_here.directory, on);
        const int code = nd_test_mpirun(
            output, sizeof output, 2,
            "env ND_FAULT=nan@loss:samples=38-38 %s/nanochat_dist_faulty --config %s --run-dir %s "
            "--set dist.overlap_grad_reduce=%s",
            ND_TEST_PROGRAMS, nd_test_here.config, run[on], on ? "true" : "false");
        cr_assert_eq(code, 0, "exit %d: %s", code, output);
        cr_assert(strstr(output, "skipped step 5") != NULL, "%s", output);
        cr_assert_eq(nd_test_metric(run[on], "loss", losses[on]), 12);
    }
    for (int i = 5; i < 12; i++)
        cr_assert(losses[0][i] == losses[1][i], "step %d: %.17g and %.17g", i + 1, losses[0][i],
                  losses[1][i]);
}
