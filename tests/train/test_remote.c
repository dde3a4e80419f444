/* Training where the host cannot reach the backend's memory, as on a GPU. */
#include "support/run_files.h"
#include "support/support.h"
#include "support/wrapped_backend.h"

#include <stdio.h>
#include <string.h>

static char directory[64], config[128];

static void setup(void)
{
    strcpy(directory, nd_test_directory());
    snprintf(config, sizeof config, "%s/config.ini", directory);
    nd_test_write_config(config);
}

static void teardown(void)
{
    nd_test_remove_directory(directory);
}

TestSuite(remote, .init = setup, .fini = teardown);

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
    ND_ASSERT_OK(nd_cpu_backend_create(&(nd_cpu_backend_options){.threads = 1, .isa = "auto"}, &b));
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
             "training.use_8bit_optim=true hardware.packed_codes=true");
    train(3, "training.batch_size=12 dist.deterministic=off model.hidden_dim=64 "
             "dist.gradient_wire=int8 dist.weight_wire=trits");
    train(2, "dist.deterministic=off model.hidden_dim=64 dist.gradient_wire=bf16 "
             "dist.weight_wire=changed dist.embedding_wire=int8_delta hardware.packed_codes=true");
}
