/* The forms of multi-token prediction that have parameters of their own: they are saved and resumed
 * with the run, and left behind by everything that uses the model. */
#include "support/run_files.h"
#include "support/support.h"

#include <stdio.h>
#include <string.h>

TestSuite(mtp_forms, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

static const char *const forms[] = {"sequential", "separate"};

static const char *keys_of(const char *form, const char *more)
{
    static char keys[1024];
    snprintf(keys, sizeof keys,
             "--set training.use_mtp=true --set training.mtp_n_tokens=3 "
             "--set training.mtp_schedule=linear --set training.mtp_form=%s %s",
             form, more);
    return keys;
}

static const char *path_of(const char *name)
{
    static char paths[4][128];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", nd_test_here.directory, name);
    return path;
}

static void train(int ranks, const char *run, const char *form, const char *more)
{
    nd_test_train(ranks, 0, nd_test_here.config, path_of(run), keys_of(form, more));
}

/* Runs a command of the program in the test's directory and returns its output. */
static const char *command(int expected, const char *arguments)
{
    static char output[16384];
    const int code = nd_test_shell(output, sizeof output, "cd %s && %s %s", nd_test_here.directory,
                                   ND_BINARY, arguments);
    cr_assert_eq(code, expected, "%s: exit %d: %s", arguments, code, output);
    return output;
}

#define ASSERT_HAS(text, part)                                                                     \
    cr_assert(strstr((text), (part)) != NULL, "no \"%s\" in:\n%s", part, text)

Test(mtp_forms, with_parameters_resume_on_other_ranks_to_the_bits_of_a_whole_run)
{
    static const char *const systems =
        "--set training.use_collider=true --set training.collider_threshold=1 "
        "--set training.use_8bit_optim=true --set hardware.gradient_checkpointing=true "
        "--set model.hidden_dim=64 --set training.grad_clip=0.5";
    for (int f = 0; f < 2; f++) {
        char state[65], more[512];
        double whole[ND_TEST_STEPS_MAX], cut[ND_TEST_STEPS_MAX], total[ND_TEST_STEPS_MAX];
        snprintf(more, sizeof more, "%s --resume none", systems);
        train(0, "whole", forms[f], more);
        snprintf(state, sizeof state, "%s", nd_test_state(path_of("whole")));
        cr_assert_eq(strlen(state), 64);
        snprintf(more, sizeof more, "%s --resume none --epochs 1", systems);
        train(2, "cut", forms[f], more);
        snprintf(more, sizeof more, "%s --resume auto", systems);
        train(4, "cut", forms[f], more);
        cr_assert_eq(nd_test_metric(path_of("whole"), "loss", whole), 12);
        cr_assert_eq(nd_test_metric(path_of("cut"), "loss", cut), 12);
        cr_assert_eq(memcmp(whole, cut, 12 * sizeof *whole), 0, "%s", forms[f]);
        cr_assert_str_eq(nd_test_state(path_of("cut")), state, "%s", forms[f]);
        nd_test_metric(path_of("whole"), "total_loss", total);
        cr_assert_gt(total[0], whole[0] + 0.5, "%s: further tokens add no loss", forms[f]);
    }
}

/* Their gradients would be zeros, but momentum and weight decay would go on moving the weights. */
Test(mtp_forms, of_tokens_that_no_longer_count_are_neither_sent_nor_updated)
{
    for (int f = 0; f < 2; f++) {
        char state[65];
        double sent[ND_TEST_STEPS_MAX];
        const char *const thirds = "--set training.mtp_schedule=thirds --resume none "
                                   "--set logging.checkpoint_interval=8";
        train(0, "alone", forms[f], thirds);
        snprintf(state, sizeof state, "%s", nd_test_state(path_of("alone")));
        train(2, "run", forms[f], thirds);
        cr_assert_str_eq(nd_test_state(path_of("run")), state, "%s", forms[f]);
        cr_assert_eq(nd_test_metric(path_of("run"), "comm_bytes", sent), 12);
        cr_assert_gt(sent[3], sent[7], "%s: all heads %g bytes, one %g", forms[f], sent[3],
                     sent[7]);
        cr_assert_gt(sent[7], sent[11], "%s: one head %g bytes, none %g", forms[f], sent[7],
                     sent[11]);
        char output[4096];
        const int code = nd_test_run_script(
            output, sizeof output,
            "of() { tr -d ' \n' <run/checkpoints/step_000000$1/manifest.json | tr '{' '\n' |"
            "grep '\"part\"' | grep $2 '^\"name\":\"mtp' | sed 's/\"file\":[^,]*,//' | sort; };"
            "of 08 > heads8; of 12 > heads12; of 08 -v > others8; of 12 -v > others12;"
            "[ -s heads8 ] && [ -s others8 ] && cmp heads8 heads12 && ! cmp -s others8 others12");
        cr_assert_eq(code, 0, "%s: %s", forms[f], output);
    }
}

Test(mtp_forms, of_tokens_that_no_step_trains_are_not_sent)
{
    double none[ND_TEST_STEPS_MAX], sent[ND_TEST_STEPS_MAX];
    train(2, "none", forms[0], "--set training.use_mtp=false");
    nd_test_metric(path_of("none"), "comm_bytes", none);
    for (int f = 0; f < 2; f++) {
        train(2, "run", forms[f], "--set training.mtp_until=0 --resume none");
        cr_assert_eq(nd_test_metric(path_of("run"), "comm_bytes", sent), 12);
        cr_assert_eq(sent[11], none[11], "%s: %g, without %g", forms[f], sent[11], none[11]);
    }
}

Test(mtp_forms, evaluation_and_sampling_leave_their_parameters_behind)
{
    for (int f = 0; f < 2; f++) {
        char expected[64];
        double val[ND_TEST_STEPS_MAX];
        train(0, "run", forms[f], "--resume none");
        nd_test_metric(path_of("run"), "val_loss", val);
        snprintf(expected, sizeof expected, "\"val_loss\":%.17g,", val[11]);
        ASSERT_HAS(command(0, "eval --checkpoint run --samples 6 --json"), expected);
        command(0, "sample --checkpoint run --max-tokens 5 --seed 1");
        ASSERT_HAS(command(0, "info --verify run"), "mtp.1.");
    }
}

Test(mtp_forms, exported_models_have_the_tensors_of_one_without_them)
{
    train(0, "shared", "shared", "");
    command(0, "export --checkpoint shared --type f32 --out shared.gguf");
    command(0, "export --checkpoint shared --format safetensors --type f32 --out shared_hf");
    for (int f = 0; f < 2; f++) {
        char output[8192];
        train(0, "run", forms[f], "--resume none");
        command(0, "export --checkpoint run --type f32 --out run.gguf");
        command(0, "export --checkpoint run --format safetensors --type f32 --out run_hf");
        const int code = nd_test_shell(
            output, sizeof output,
            "cd %s && [ $(stat -c %%s shared.gguf) = $(stat -c %%s run.gguf) ] && "
            "! grep -qa 'mtp\\.' run.gguf run_hf/* && ! cmp -s shared.gguf run.gguf && "
            "for d in shared run; do grep -ao '\"model\\.[^\"]*\"' ${d}_hf/model.safetensors "
            ">$d.names; done; e=$?; rm -r run_hf; [ -s run.names ] && cmp shared.names run.names "
            "&& "
            "exit $e",
            nd_test_here.directory);
        cr_assert_eq(code, 0, "%s: %s", forms[f], output);
    }
}

Test(mtp_forms, resume_into_another_form_is_refused_with_the_tensor_that_is_missing)
{
    train(0, "run", "shared", "--epochs 1");
    const char *text = command(4, "--config config.ini --run-dir run --resume auto "
                                  "--set training.use_mtp=true --set training.mtp_form=separate");
    ASSERT_HAS(text, "mtp.1.output.weight");
}
