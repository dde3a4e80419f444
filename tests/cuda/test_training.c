/* The whole training step on the emulated device against the CPU: what no single op shows. */
#include "cuda/emulated_backend.h"
#include "support/run_files.h"
#include "support/support.h"

#include "train/evaluate.h"
#include "train/step.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 2 };

/* counts: of recordings; may be NULL. */
static void train(const char *config, const char *extra, bool device, double losses[STEPS + 1],
                  nd_replay_counts *counts)
{
    nd_comm *comm = NULL;
    nd_config *c = calloc(1, sizeof *c);
    nd_run *run = calloc(1, sizeof *run);
    cr_assert(c != NULL && run != NULL);
    nd_config_defaults(c);
    ND_ASSERT_OK(nd_config_read_file(c, config));
    char settings[512], *rest = settings;
    snprintf(settings, sizeof settings, "%s", extra);
    for (char *one; (one = strsep(&rest, " ")) != NULL;)
        if (one[0])
            ND_ASSERT_OK(nd_config_set(c, one, "test"));
    ND_ASSERT_OK(nd_config_check(c));
    ND_ASSERT_OK(nd_comm_create_solo(&comm));
    if (device)
        ND_ASSERT_OK(nd_emulated_backend_create_checked(&(nd_cuda_options){0}, &run->backend));
    else
        ND_ASSERT_OK(nd_cpu_backend_create(&(nd_cpu_backend_options){.threads = 1}, &run->backend));
    ND_ASSERT_OK(nd_run_create(c, comm, run));
    ND_ASSERT_OK(nd_run_start_loader(run));
    for (int i = 0; i < STEPS; i++) {
        nd_step_result step;
        ND_ASSERT_OK(nd_step_run(run, false, &step));
        losses[i] = step.loss;
    }
    nd_evaluation evaluation;
    ND_ASSERT_OK(nd_evaluate(run->model, run->data.val, comm, 0, &evaluation));
    losses[STEPS] = evaluation.loss;
    if (counts)
        *counts = nd_replay_counted(run->replay);
    nd_run_destroy(run);
    nd_comm_destroy(comm);
    free(run);
    free(c);
}

static void compare(const char *extra, double tolerance)
{
    char directory[64], config[128];
    double cpu[STEPS + 1], gpu[STEPS + 1];
    strcpy(directory, nd_test_directory());
    snprintf(config, sizeof config, "%s/config.ini", directory);
    nd_test_write_config(config);
    train(config, extra, false, cpu, NULL);
    train(config, extra, true, gpu, NULL);
    for (int i = 0; i <= STEPS; i++)
        cr_assert(fabs(cpu[i] - gpu[i]) <= tolerance * cpu[i],
                  "%s: loss %d is %.9g, %.9g on the CPU", extra, i, gpu[i], cpu[i]);
    nd_test_remove_directory(directory);
}

Test(cuda_training, fp32_and_bf16_give_the_losses_of_the_cpu)
{
    compare("training.batch_size=2 data.n_samples=8 logging.eval_samples=2 hardware.precision=fp32",
            1e-4);
    compare("training.batch_size=2 data.n_samples=8 logging.eval_samples=2 hardware.precision=bf16",
            2e-3);
}

Test(cuda_training, so_do_collider_several_tokens_ahead_and_quantised_state)
{
    compare(
        "training.batch_size=2 data.n_samples=8 logging.eval_samples=2 training.use_collider=true "
        "training.use_mtp=true training.mtp_n_tokens=3 training.use_8bit_optim=true "
        "optimizer.master_precision=bf16 hardware.gradient_checkpointing=true",
        2e-3);
    compare("training.batch_size=2 data.n_samples=8 logging.eval_samples=2 optimizer.state_bits=4 "
            "model.group_size=16 model.arch=llama model.tie_embeddings=false",
            2e-3);
}

/* Ops one by one, and from recordings: the same bits. */
static void replay(const char *extra, int64_t recorded, int64_t replayed)
{
    char directory[64], config[128], settings[512];
    double alone[STEPS + 1], together[STEPS + 1];
    nd_replay_counts counts = {0};
    strcpy(directory, nd_test_directory());
    snprintf(config, sizeof config, "%s/config.ini", directory);
    nd_test_write_config(config);
    for (int on = 0; on < 2; on++) {
        snprintf(settings, sizeof settings,
                 "data.n_samples=16 logging.eval_samples=2 training.micro_batch_size=1 "
                 "hardware.cuda_graphs=%s %s",
                 on ? "true" : "false", extra);
        train(config, settings, true, on ? together : alone, on ? &counts : NULL);
    }
    cr_assert_eq(memcmp(alone, together, sizeof alone), 0, "%s: %.17g and %.17g", extra, alone[1],
                 together[1]);
    cr_assert(counts.recorded == recorded && counts.replayed == replayed,
              "%s: %lld recorded, %lld replayed", extra, (long long)counts.recorded,
              (long long)counts.replayed);
    nd_test_remove_directory(directory);
}

/* Four micro-batches a step in the places 0, 1, 1 and 2 of the stack, with 0, 1, 0 and 2 merges:
 * four works, each recorded in the second step. */
Test(cuda_training, a_micro_batch_that_is_replayed_gives_the_same_bits)
{
    replay("training.batch_size=4", 4, 4);
}

/* One work: the first micro-batch writes and the others add to it, so two; the evaluation comes
 * last. */
Test(cuda_training, so_does_one_that_adds_to_the_sum_of_those_before)
{
    replay("training.batch_size=4 dist.deterministic=off", 2, 6);
}

Test(cuda_training, what_waits_for_the_device_is_not_recorded)
{
    replay("training.batch_size=4 training.use_collider=true", 0, 0);
    replay("training.batch_size=4 training.use_mtp=true training.mtp_form=separate", 0, 0);
    replay("training.batch_size=1 training.grad_clip=0", 0, 0);
}
