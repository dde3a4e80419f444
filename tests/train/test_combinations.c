/* Every combination of the systems: multi-token prediction, Collider, the asynchronous loader,
 * 8-bit state, GaLore and gradient checkpointing. Each trains three steps with accumulation and
 * clipping, and again with a break after the second, partly on other numbers of ranks; both end in
 * the same state. */
#include "support/run_files.h"
#include "support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MTP = 1, COLLIDER = 2, ASYNC = 4, EIGHT_BIT = 8, GALORE = 16, CHECKPOINTING = 32, ALL = 64 };

TestSuite(combinations, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

static const char *text(int systems, int system)
{
    return systems & system ? "true" : "false";
}

/* The keys of a combination. 128 wide, so that projected matrices too are large enough for states
 * in 8 bits; they meet a new subspace in every other step. */
static void write_arguments(int systems, char *arguments, size_t size)
{
    snprintf(arguments, size,
             "--total-steps 3 --n-samples 16 --checkpoint-interval 0 --set model.hidden_dim=128 "
             "--set training.micro_batch_size=2 --set training.warmup_steps=1 "
             "--set training.grad_clip=0.5 --set logging.eval_interval=0 "
             "--set logging.tensorboard=false --set training.mtp_schedule=linear "
             "--set training.galore_rank=32 --set training.galore_update_freq=2 "
             "--set training.collider_threshold=0.9 "
             "--set training.use_mtp=%s --set training.use_collider=%s "
             "--set training.use_async_loader=%s --set training.use_8bit_optim=%s "
             "--set training.use_galore=%s --set hardware.gradient_checkpointing=%s "
             "--set hardware.backward_precision=%s",
             text(systems, MTP), text(systems, COLLIDER), text(systems, ASYNC),
             text(systems, EIGHT_BIT), text(systems, GALORE), text(systems, CHECKPOINTING),
             systems % 3 == 0 ? "int8" : "same"); /* with every system, and with all of them */
}

/* Ranks of the run before and after the break. Starting several takes long, so that most
 * combinations run alone, unless ND_TEST_ALL_RANKS is set; each system does meet ranks, and so do
 * all at once. */
static void choose_ranks(int systems, int *before, int *after)
{
    const int kind = (systems * 7 + systems / 8) % 16;
    const bool all = systems == ALL - 1 || getenv("ND_TEST_ALL_RANKS");
    *before = all || kind == 3 ? 4 : 0;
    *after = all || kind == 5 ? 2 : 0;
}

/* What the systems leave in the checkpoint: codes of momentum, and projectors, in 8 bits
 * with both. */
static void check_state(const char *run, int systems)
{
    char path[256];
    snprintf(path, sizeof path, "%s/checkpoints/latest/manifest.json", run);
    char *manifest = nd_test_read_file(path, NULL);
    const bool eight = systems & EIGHT_BIT, galore = systems & GALORE;
    cr_assert_eq(strstr(manifest, "\"momentum_codes\"") != NULL, eight, "systems %d", systems);
    cr_assert_eq(strstr(manifest, "\"projector_codes\"") != NULL, eight && galore, "systems %d",
                 systems);
    cr_assert_eq(strstr(manifest, "\"projector") != NULL, galore, "systems %d", systems);
    free(manifest);
}

static double activations_of(const char *run)
{
    char path[256];
    double bytes = 0.0;
    snprintf(path, sizeof path, "%s/metrics.jsonl", run);
    char *text = nd_test_read_file(path, NULL);
    const char *at = strstr(text, "\"activations\":");
    cr_assert(at && sscanf(at, "\"activations\":%lf", &bytes) == 1);
    free(text);
    return bytes;
}

/* Bytes of activations with each combination that has run. */
static double activations[ALL];

static void check_combination(int systems)
{
    char whole[128], cut[128], arguments[1024], more[1200], state[65];
    double losses[2][ND_TEST_STEPS_MAX], kept[ND_TEST_STEPS_MAX], total[ND_TEST_STEPS_MAX];
    int before, after;
    snprintf(whole, sizeof whole, "%s/whole", nd_test_here.directory);
    snprintf(cut, sizeof cut, "%s/cut", nd_test_here.directory);
    write_arguments(systems, arguments, sizeof arguments);
    choose_ranks(systems, &before, &after);
    snprintf(more, sizeof more, "%s --resume none", arguments);
    nd_test_train(0, 0, nd_test_here.config, whole, more);
    snprintf(more, sizeof more, "%s --resume none --epochs 1", arguments);
    nd_test_train(before, 0, nd_test_here.config, cut, more);
    snprintf(more, sizeof more, "%s --resume auto", arguments);
    nd_test_train(after, 0, nd_test_here.config, cut, more);
    cr_assert_eq(nd_test_metric(whole, "loss", losses[0]), 3);
    cr_assert_eq(nd_test_metric(cut, "loss", losses[1]), 3);
    for (int step = 0; step < 3; step++)
        cr_assert(isfinite(losses[0][step]) && losses[0][step] == losses[1][step],
                  "systems %d: step %d: %.17g, with a break %.17g", systems, step + 1,
                  losses[0][step], losses[1][step]);
    snprintf(state, sizeof state, "%s", nd_test_state(whole));
    cr_assert_eq(strlen(state), 64);
    cr_assert_str_eq(state, nd_test_state(cut), "systems %d", systems);
    nd_test_metric(whole, "kept_fraction", kept);
    nd_test_metric(whole, "total_loss", total);
    cr_assert_eq(kept[0] < 1.0, (systems & COLLIDER) != 0, "systems %d: Collider keeps %g", systems,
                 kept[0]);
    check_state(whole, systems);
    activations[systems] = activations_of(whole);
    if (systems & CHECKPOINTING)
        cr_assert_lt(activations[systems], 0.8 * activations[systems - CHECKPOINTING], "systems %d",
                     systems);
    cr_assert_eq(total[0] > losses[0][0], (systems & MTP) != 0, "systems %d: losses %g and %g",
                 systems, losses[0][0], total[0]);
}

/* A quarter of them, so that tests can run beside each other. */
static void check_quarter(int first)
{
    for (int systems = first; systems < ALL; systems += 4)
        check_combination(systems);
}

Test(combinations, without_mtp_and_collider_train_and_resume_to_the_same_state)
{
    check_quarter(0);
}

Test(combinations, with_mtp_train_and_resume_to_the_same_state)
{
    check_quarter(MTP);
}

Test(combinations, with_collider_train_and_resume_to_the_same_state)
{
    check_quarter(COLLIDER);
}

Test(combinations, with_mtp_and_collider_train_and_resume_to_the_same_state)
{
    check_quarter(MTP | COLLIDER);
}
