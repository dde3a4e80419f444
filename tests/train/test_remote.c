/* Training where the host cannot reach the backend's memory, as on a GPU. */
#include "support/run_files.h"
#include "support/support.h"
#include "support/wrapped_backend.h"

#include "train/step.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *const directory = nd_test_here.directory, *const config = nd_test_here.config;

TestSuite(remote, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

/* ranks 0: alone. */
static void train(int ranks, const char *extra)
{
    char output[4096];
    int code;
    if (ranks > 0)
        code = nd_test_mpirun(output, sizeof output, ranks, "%s/ranks_remote %s %s %s",
                              ND_TEST_PROGRAMS, config, directory, extra);
    else
        code = nd_test_shell(output, sizeof output, "%s/ranks_remote %s %s %s", ND_TEST_PROGRAMS,
                             config, directory, extra);
    cr_assert_eq(code, 0, "%d ranks, %s: exit %d:\n%s", ranks, extra, code, output);
}

Test(remote, an_op_that_is_given_host_memory_names_itself)
{
    nd_backend *b = NULL;
    void *memory = NULL;
    ND_ASSERT_OK(nd_cpu_backend_create(&(nd_cpu_backend_options){.threads = 1}, &b));
    ND_ASSERT_OK(nd_remote_backend_create(b, &b));
    ND_ASSERT_OK(b->ops.allocate(b, 64, &memory));
    float host[16] = {1.0f}, back[16] = {0};
    ND_ASSERT_OK(b->ops.upload(b, memory, host, sizeof host));
    ND_ASSERT_OK(b->ops.download(b, back, memory, sizeof back));
    cr_assert_eq(back[0], 1.0f);
    ND_ASSERT_FAILS(b->ops.axpby(b, nd_view_of(memory, ND_F32, 1, 16), 1.0f,
                                 nd_cview_of(host, ND_F32, 1, 16), 0.0f),
                    ND_EINTERNAL, "axpby: argument 1 (64 bytes) is not the backend's memory");
    b->ops.release(b, memory, 64);
    nd_backend_destroy(b);
}

Test(remote, a_run_trains_saves_and_resumes_as_in_host_memory)
{
    train(0, "");
    train(0, "optimizer.state_bits=4 model.hidden_dim=64");
}

Test(remote, bf16_masters_and_quantised_state_are_initialised_where_they_lie)
{
    train(0, "optimizer.master_precision=bf16 training.use_8bit_optim=true model.vocab_size=256");
}

Test(remote, collider_and_several_tokens_ahead_choose_from_downloads)
{
    train(0, "training.use_collider=true training.use_mtp=true training.mtp_n_tokens=3 "
             "hardware.gradient_checkpointing=true");
}

Test(remote, groups_llama_and_an_untied_head)
{
    train(0, "model.arch=llama model.tie_embeddings=false model.group_size=16");
}

Test(remote, ranks_exchange_gradients_and_codes_through_the_host)
{
    train(2, "");
    train(4, "training.batch_size=24 optimizer.master_precision=bf16");
    train(3, "training.batch_size=12 dist.deterministic=off");
    train(2, "training.use_galore=true training.galore_rank=8 training.galore_update_freq=2 "
             "training.use_8bit_optim=true hardware.pack_ternary_weights=true");
    train(3, "training.batch_size=12 dist.deterministic=off model.hidden_dim=64 "
             "dist.grad_comm_dtype=int8 dist.weight_sync=full_base3");
    train(
        2,
        "dist.deterministic=off model.hidden_dim=64 dist.grad_comm_dtype=bf16 "
        "dist.weight_sync=delta dist.embedding_sync=int8_delta hardware.pack_ternary_weights=true");
}

/* How often the host waits for the backend in the last of these steps: what a GPU stands
 * still for. */
static int64_t waits_of_step(int steps, const char *extra)
{
    const nd_cpu_backend_options options = {.threads = 1};
    nd_comm *comm = NULL;
    nd_step_result step;
    int64_t before = 0, after = 0;
    char settings[512], *rest = settings;
    nd_config *c = calloc(1, sizeof *c);
    nd_run *run = calloc(1, sizeof *run);
    cr_assert(c != NULL && run != NULL);
    nd_config_defaults(c);
    ND_ASSERT_OK(nd_config_read_file(c, config));
    snprintf(settings, sizeof settings, "%s", extra);
    for (char *one; (one = strsep(&rest, " ")) != NULL;)
        if (one[0])
            ND_ASSERT_OK(nd_config_set(c, one, "test"));
    ND_ASSERT_OK(nd_config_check(c));
    ND_ASSERT_OK(nd_comm_create_solo(&comm));
    ND_ASSERT_OK(nd_cpu_backend_create(&options, &run->backend));
    ND_ASSERT_OK(nd_remote_backend_create(run->backend, &run->backend));
    ND_ASSERT_OK(nd_run_create(c, comm, run));
    ND_ASSERT_OK(nd_run_start_loader(run));
    for (int i = 0; i < steps; i++) {
        before = nd_remote_backend_waits(run->backend);
        ND_ASSERT_OK(nd_step_run(run, false, &step));
        after = nd_remote_backend_waits(run->backend);
    }
    nd_run_destroy(run);
    nd_comm_destroy(comm);
    free(run);
    free(c);
    return after - before;
}

/* Losses of all micro-batches at once, norms of all gradients at once. */
Test(remote, a_step_waits_twice_for_the_device)
{
    cr_assert_eq(waits_of_step(2, ""), 2);
    cr_assert_eq(waits_of_step(2, "training.optimizer_type=adamw training.micro_batch_size=1"), 2);
    cr_assert_eq(waits_of_step(2, "training.use_mtp=true training.mtp_form=separate "
                                  "training.use_8bit_optim=true hardware.pack_ternary_weights=true "
                                  "hardware.gradient_checkpointing=true"),
                 2);
    cr_assert_eq(waits_of_step(2, "training.use_mtp=true training.mtp_form=sequential"), 2);
}

/* A new subspace waits for three small matrices. 14 of 20 steps find one of the 14
 * matrices' each. */
Test(remote, so_does_one_with_galore_but_for_new_subspaces)
{
    const char *settings = "training.use_galore=true training.galore_rank=8 "
                           "training.galore_update_freq=20";
    cr_assert_eq(waits_of_step(3, settings), 2 + 3);
    cr_assert_eq(waits_of_step(16, settings), 2);
}

/* 8 micro-batches: each chooses its tokens by their losses, on the host. */
Test(remote, collider_waits_once_more_for_each_micro_batch)
{
    cr_assert_eq(waits_of_step(2, "training.use_collider=true training.micro_batch_size=1 "
                                  "training.batch_size=8"),
                 2 + 8);
}

/* Losses, then the norms of each layer, of the first in two halves, of the embedding, and of what
 * stands behind the layers. */
Test(remote, layers_that_are_updated_in_the_backward_pass_wait_once_each)
{
    cr_assert_eq(waits_of_step(2, "training.grad_clip=0 training.batch_size=1 model.num_layers=3"),
                 1 + 4 + 2);
}
