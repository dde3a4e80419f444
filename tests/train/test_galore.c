/* Whole runs with projected gradients. */
#include "support/run_files.h"
#include "support/support.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

/* Matrices of 64 x 64, 192 x 64 and 32 x 64 (keys and values: their rank stays full). */
#define GALORE                                                                                     \
    "--set training.use_galore=true --set training.galore_rank=40 "                                \
    "--set training.galore_update_freq=5 --set model.hidden_dim=64 "

/* Two micro-batches of 4: two ranks have one each. */
#define HALVES "--set training.micro_batch_size=4 "

#define FP32 "--set hardware.precision=fp32 --set hardware.backward_precision=same "

static char *const directory = nd_test_here.directory, *const config = nd_test_here.config;

TestSuite(galore_runs, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

typedef struct outcome {
    int steps;
    double losses[ND_TEST_STEPS_MAX], norms[ND_TEST_STEPS_MAX];
    char state[65], run[128];
} outcome;

static outcome train(const char *name, int ranks, const char *extra)
{
    outcome o = {0};
    snprintf(o.run, sizeof o.run, "%s/%s", directory, name);
    nd_test_train(ranks, 0, config, o.run, extra);
    o.steps = nd_test_metric(o.run, "loss", o.losses);
    nd_test_metric(o.run, "grad_norm", o.norms);
    strcpy(o.state, nd_test_state(o.run));
    cr_assert_eq(strlen(o.state), 64);
    return o;
}

static void assert_same(const outcome *a, const outcome *b)
{
    cr_assert_eq(a->steps, b->steps);
    for (int i = 0; i < a->steps; i++) {
        cr_assert_eq(a->losses[i], b->losses[i], "%s, step %d: loss %.17g, %s %.17g", a->run, i + 1,
                     a->losses[i], b->run, b->losses[i]);
        cr_assert_eq(a->norms[i], b->norms[i], "%s, step %d: norm %.17g, %s %.17g", a->run, i + 1,
                     a->norms[i], b->run, b->norms[i]);
    }
    cr_assert_str_eq(a->state, b->state);
}

static void assert_same_on_ranks(const int *sizes, int count, const char *extra)
{
    char name[32];
    const outcome first = train("first", sizes[0], extra);
    for (int i = 1; i < count; i++) {
        if (i > 1 && sizes[i] > ND_TEST_RANKS_MAX)
            continue;
        snprintf(name, sizeof name, "ranks%d", sizes[i]);
        const outcome other = train(name, sizes[i], extra);
        assert_same(&first, &other);
    }
}

Test(galore_runs, train_the_same_on_1_2_and_4_ranks_to_the_bit)
{
    static const int sizes[] = {0, 2, 4};
    assert_same_on_ranks(sizes, 3, GALORE);
}

/* 12 micro-batches: 6, 4 and 3 a rank. */
Test(galore_runs, so_they_do_when_ranks_hold_no_whole_node_of_the_tree)
{
    static const int sizes[] = {2, 3, 4};
    assert_same_on_ranks(sizes, 3, GALORE "--set training.batch_size=12");
}

Test(galore_runs, so_they_do_with_state_and_projectors_in_8_bits_bf16_masters_and_several_targets)
{
    static const int sizes[] = {0, 3};
    assert_same_on_ranks(sizes, 2,
                         GALORE "--set training.batch_size=6 --set training.use_8bit_optim=true "
                                "--set training.galore_rank=48 "
                                "--set model.hidden_dim=128 --set optimizer.master_precision=bf16 "
                                "--set training.use_mtp=true "
                                "--set hardware.gradient_checkpointing=true");
}

Test(galore_runs, so_they_do_beside_full_rank_blocks_of_multi_token_prediction_and_collider)
{
    static const int sizes[] = {0, 2};
    assert_same_on_ranks(sizes, 2,
                         GALORE HALVES "--set training.use_mtp=true --set training.mtp_n_tokens=2 "
                                       "--set training.mtp_form=sequential "
                                       "--set training.use_collider=true "
                                       "--set training.grad_clip=0");
}

/* Immediate updates, subspaces of the block among them, and a resume between two of them. */
Test(galore_runs, so_they_do_with_projected_blocks_where_whole_gradients_are_sent)
{
    static const char *const keys =
        GALORE HALVES "--set training.use_mtp=true --set training.mtp_n_tokens=2 "
                      "--set training.mtp_form=sequential --set training.use_collider=true "
                      "--set optimizer.galore_residual=2 --set optimizer.state_bits=4 "
                      "--set training.grad_clip=0";
    char cut[512], resume[512], output[1024];
    snprintf(cut, sizeof cut, "%s --epochs 1", keys);
    snprintf(resume, sizeof resume, "%s --resume auto", keys);
    const outcome whole = train("whole", 0, keys);
    train("cut", 2, cut);
    const outcome resumed = train("cut", 2, resume);
    assert_same(&whole, &resumed);
    nd_test_shell(output, sizeof output, "grep -E 'galore|resume' %s/training.log", resumed.run);
    cr_assert(strstr(output, "rank 40 in 17 of 21 matrices") != NULL, "%s", output);
    cr_assert(strstr(output, "step_00000008 at step 8") != NULL, "%s", output);
}

Test(galore_runs, so_they_do_with_the_residual_that_is_whole_gradients)
{
    static const int sizes[] = {0, 2};
    assert_same_on_ranks(sizes, 2,
                         GALORE "--set optimizer.galore_residual=1 --set optimizer.state_bits=8");
    const outcome after = train("after", 2,
                                GALORE HALVES "--set optimizer.galore_residual=1 "
                                              "--set training.grad_clip=1e9");
    const outcome during = train("during", 2,
                                 GALORE HALVES "--set optimizer.galore_residual=1 "
                                               "--set training.grad_clip=0");
    assert_same(&after, &during);
}

Test(galore_runs, so_they_do_with_state_in_4_bits)
{
    static const int sizes[] = {0, 2};
    assert_same_on_ranks(sizes, 2,
                         GALORE "--set optimizer.state_bits=4 --set model.hidden_dim=128");
}

Test(galore_runs, so_they_do_with_adamw_in_32_and_8_bits)
{
    static const int sizes[] = {0, 2};
    assert_same_on_ranks(sizes, 2,
                         GALORE "--set training.optimizer_type=adamw "
                                "--set training.learning_rate=0.003");
    assert_same_on_ranks(sizes, 2,
                         GALORE "--set training.optimizer_type=adamw --set optimizer.state_bits=8 "
                                "--set training.learning_rate=0.003 --set model.hidden_dim=128");
}

/* Until differences in rounding turn codes, which takes a step or two where products are rounded
 * to 8 or 16 bits. */
Test(galore_runs, without_the_fixed_tree_they_start_alike)
{
    const outcome tree = train("tree", 0, GALORE FP32);
    const outcome off = train("off", 2, GALORE FP32 "--set dist.deterministic=off");
    for (int i = 0; i < 3; i++)
        cr_assert_float_eq(off.losses[i], tree.losses[i], 1e-3, "step %d: %.9g and %.9g", i + 1,
                           off.losses[i], tree.losses[i]);
    cr_assert_float_eq(off.norms[0], tree.norms[0], 1e-5);
}

/* The cut is after step 8: each matrix got a subspace in one of steps 6 to 10 and the
 * five before. */
Test(galore_runs, cut_between_two_subspaces_they_go_on_to_the_bit_on_other_ranks)
{
    const outcome whole = train("whole", 2, GALORE "--set training.use_8bit_optim=true");
    train("cut", 2, GALORE "--set training.use_8bit_optim=true --epochs 1");
    const outcome cut = train("cut", 4, GALORE "--set training.use_8bit_optim=true --resume auto");
    assert_same(&whole, &cut);
}

Test(galore_runs, updates_during_the_backward_pass_change_no_bit)
{
    const outcome after = train("after", 2, GALORE HALVES "--set training.grad_clip=1e9");
    const outcome during = train("during", 2, GALORE HALVES "--set training.grad_clip=0");
    assert_same(&after, &during);
    const outcome alone = train("alone", 0, GALORE HALVES "--set training.grad_clip=0");
    assert_same(&after, &alone);
}

Test(galore_runs, nor_do_they_without_projection)
{
    const outcome after = train("after", 2, HALVES "--set training.grad_clip=1e9");
    const outcome during = train("during", 2, HALVES "--set training.grad_clip=0");
    assert_same(&after, &during);
}

Test(galore_runs, one_rank_with_one_micro_batch_updates_during_the_backward_pass_too)
{
    const char *const one = GALORE "--set training.micro_batch_size=8 "
                                   "--set optimizer.state_bits=8 ";
    char extra[512];
    snprintf(extra, sizeof extra, "%s --set training.grad_clip=1e9", one);
    const outcome after = train("after", 0, extra);
    snprintf(extra, sizeof extra, "%s --set training.grad_clip=0", one);
    const outcome during = train("during", 0, extra);
    assert_same(&after, &during);
}

Test(galore_runs, a_rank_above_every_side_is_full_rank_to_the_bit)
{
    const outcome off = train("off", 0, "");
    const outcome full = train("full", 2, "--set training.use_galore=true");
    assert_same(&off, &full);
}

Test(galore_runs, the_log_names_the_matrices_that_stay_full_rank)
{
    char output[8192];
    const int code = nd_test_shell(output, sizeof output, "%s --config %s --run-dir %s/log %s",
                                   ND_BINARY, config, directory, GALORE "--total-steps 1");
    cr_assert_eq(code, 0, "%s", output);
    cr_assert(strstr(output, "rank 40 in 10 of 14 matrices") != NULL, "%s", output);
    cr_assert(strstr(output, "galore_rank 40 is not below the smaller side of blk.*.attn_k (32), "
                             "blk.*.attn_v (32): these stay full rank") != NULL,
              "%s", output);
}

static void assert_refused(const char *before, const char *after, const char *message)
{
    char output[8192], run[128];
    snprintf(run, sizeof run, "%s/refused", directory);
    nd_test_train(0, 0, config, run, before);
    const int code =
        nd_test_shell(output, sizeof output, "%s --config %s --run-dir %s --resume auto %s",
                      ND_BINARY, config, run, after);
    cr_assert_eq(code, 4, "exit %d: %s", code, output);
    cr_assert(strstr(output, message) != NULL, "\"%s\" lacks \"%s\"", output, message);
}

Test(galore_runs, resume_into_another_rank_is_refused)
{
    assert_refused(GALORE, GALORE "--set training.galore_rank=48",
                   "projector of blk.0.attn_q.weight is f32 [40, 64], this configuration needs f32 "
                   "[48, 64]");
}

Test(galore_runs, resume_into_projectors_of_other_bits_is_refused)
{
    assert_refused(GALORE "--set model.hidden_dim=128",
                   GALORE "--set model.hidden_dim=128 --set optimizer.galore_projector_bits=8",
                   "holds no projector_codes of blk.0.attn_q.weight");
}

Test(galore_runs, resume_with_projection_switched_on_or_off_is_refused)
{
    assert_refused("--set model.hidden_dim=64", GALORE, "galore_rank");
    assert_refused(GALORE, "--set model.hidden_dim=64", "this configuration needs f32 [64, 64]");
}

static double memory_of(const outcome *o, const char *category)
{
    char path[160];
    snprintf(path, sizeof path, "%s/metrics.jsonl", o->run);
    char *text = nd_test_read_file(path, NULL);
    *strchr(text, '\n') = '\0';
    json_t *line = json_loads(text, 0, NULL);
    const double bytes = json_number_value(json_object_get(json_object_get(line, "mem"), category));
    json_decref(line);
    free(text);
    return bytes;
}

/* 8 layers: a full gradient would be there 8 times. */
Test(galore_runs, keep_no_more_than_one_layers_full_gradient)
{
    const double matrices = 4.0 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 192);
    const double vocabulary = 4.0 * 64 * 64, norms = 4.0 * (9 * 64 + 2 * 192);
    const char *const deep = "--set model.num_layers=8 --set model.hidden_dim=64 "
                             "--set training.micro_batch_size=8 --total-steps 1 "
                             "--set training.galore_rank=4 --set model.vocab_size=64 ";
    char extra[512];
    snprintf(extra, sizeof extra, "%s", deep);
    const outcome full = train("full", 0, extra);
    snprintf(extra, sizeof extra, "%s --set training.use_galore=true", deep);
    const outcome projected = train("projected", 0, extra);
    snprintf(extra, sizeof extra, "%s --set training.use_galore=true --set training.grad_clip=0",
             deep);
    const outcome during = train("during", 0, extra);
    snprintf(extra, sizeof extra, "%s --set training.grad_clip=0", deep);
    const outcome full_during = train("full_during", 0, extra);
    const double rest = vocabulary + norms + 64.0 * 64;
    cr_assert_gt(memory_of(&full, "gradients"), 8.0 * matrices);
    /* 8 layers projected to a rank of 4 of at least 32 */
    cr_assert_lt(memory_of(&projected, "gradients"), 2.0 * matrices + 8.0 * rest);
    cr_assert_lt(memory_of(&during, "gradients"), 1.2 * matrices + 2.0 * rest);
    cr_assert_lt(memory_of(&full_during, "gradients"), matrices + rest);
}

/* With the embedding small, what ranks send a step falls with the rank. */
Test(galore_runs, send_projected_gradients)
{
    double full[ND_TEST_STEPS_MAX], projected[ND_TEST_STEPS_MAX];
    const char *const wide = "--set model.hidden_dim=128 --set training.galore_rank=8 "
                             "--set training.galore_update_freq=100 ";
    char extra[512];
    const outcome a = train("full", 2, wide);
    snprintf(extra, sizeof extra, "%s --set training.use_galore=true", wide);
    const outcome b = train("projected", 2, extra);
    nd_test_metric(a.run, "comm_bytes", full);
    nd_test_metric(b.run, "comm_bytes", projected);
    const double floats = 2.0 * 4.0 * (2 * 128 * 128 + 2 * 64 * 128 + 3 * 128 * 384);
    /* The last step finds nobody a new subspace: 14 matrices, one a step. */
    cr_assert_float_eq(full[11] - projected[11], floats - floats * 8.0 / 128.0, 0.15 * floats,
                       "%g and %g", full[11], projected[11]);
}
