/* Checkpoints of a run on another machine, such as one with GPUs. */
#include "support/run_files.h"
#include "support/support.h"
#include "train/checkpoint/load_model.h"

#include <stdio.h>

static char output[16384];

TestSuite(other_machine, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

/* $D/run, whose last checkpoint says what a run on GPUs says. */
static void make_gpu_checkpoint(void)
{
    cr_assert_eq(
        nd_test_run_script(
            output, sizeof output,
            "$T --total-steps 2 --set dist.deterministic=off --set hardware.threads=1 --set "
            "hardware.precision=bf16 > log || { cat log; exit 1; }; python3 - <<'P'\n"
            "import hashlib, json, os, re\n"
            "d = os.path.realpath('run/checkpoints/latest')\n"
            "t = open(d + '/config.ini').read()\n"
            "for key, value in (('target', 'cuda'), ('attention_backend', 'cudnn'),\n"
            "                   ('cuda_graphs', 'true'), ('grad_reduction', 'allreduce')):\n"
            "    t, changed = re.subn('(?m)^%s = .*' % key, key + ' = ' + value, t)\n"
            "    assert changed == 1, key\n" ND_TEST_SIGN_CONFIG "P\n"
            "true"),
        0, "%s", output);
}

static void assert_runs(const char *script)
{
    cr_assert_eq(nd_test_run_script(output, sizeof output, script), 0, "%s: %s", script, output);
}

Test(other_machine, the_checkpoint_of_a_run_on_gpus_is_of_use_without_them)
{
    make_gpu_checkpoint();
    assert_runs("$B sample --checkpoint run --ids --max-tokens 2");
    assert_runs("$B eval --checkpoint run");
    assert_runs("$B export --checkpoint run --type f32 --out m.gguf");
    assert_runs("$B export --checkpoint run --format safetensors --out m");
}

Test(other_machine, nothing_that_a_training_run_says_of_its_machine_is_kept)
{
    char path[128];
    static nd_loaded_model loaded;
    nd_comm *comm;
    make_gpu_checkpoint();
    snprintf(path, sizeof path, "%s/run", nd_test_here.directory);
    ND_ASSERT_OK(nd_comm_create_solo(&comm));
    const nd_load_options options = {
        .checkpoint = path, .precision = "fp32", .target = "cpu", .activation_quant = true};
    ND_ASSERT_OK(nd_load_model(&options, comm, &loaded));
    cr_assert_eq(loaded.config.hardware.threads, 0);
    cr_assert_eq(loaded.config.hardware.attention_backend, ND_ATTENTION_AUTO);
    cr_assert_eq(loaded.config.hardware.cuda_graphs, 0);
    cr_assert_eq(loaded.config.dist.grad_reduction, ND_REDUCTION_OWNERS);
    nd_loaded_model_release(&loaded);
    nd_comm_destroy(comm);
}

Test(other_machine, a_run_on_gpus_can_be_planned_without_them)
{
    assert_runs("$B plan --config $C --ranks 2 --set hardware.attention_backend=cudnn --set "
                "hardware.cuda_graphs=true --set hardware.precision=bf16 --set "
                "dist.grad_reduction=allreduce --set dist.deterministic=off");
}
