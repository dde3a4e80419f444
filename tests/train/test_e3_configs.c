/* The five configurations of the E3 suite: their values, their small editions, and that what the
 * suite advises to change does change training. */
#include "core/config/config.h"
#include "support/run_files.h"
#include "support/support.h"

#include <stdio.h>
#include <string.h>

static const char *const names[] = {"baseline", "mtp_only", "muon_8bit", "galore2", "full"};
enum { CONFIGS = sizeof names / sizeof *names };

static nd_config *read_config(const char *directory, const char *name)
{
    static nd_config config;
    char path[512];
    nd_config_defaults(&config);
    snprintf(path, sizeof path, "%s/configs/%s/%s.ini", ND_SOURCE_DIR, directory, name);
    ND_ASSERT_OK(nd_config_read_file(&config, path));
    ND_ASSERT_OK(nd_config_check(&config));
    return &config;
}

/* With the suite's rates and momentum, or those that this one wants at the small size. */
static void assert_common_values(const nd_config *c, bool suite, int config)
{
    static const double rates[CONFIGS][2] = {
        {0.005, 0.02}, {0.01, 0.01}, {0.01, 0.005}, {0.01, 0.01}, {0.01, 0.005}};
    cr_assert_eq(c->training.batch_size, 16);
    cr_assert_eq(c->training.learning_rate, suite ? 0.02 : rates[config][0]);
    cr_assert_eq(c->optimizer.embedding_lr, suite ? 0.003 : rates[config][1]);
    cr_assert_eq(c->training.weight_decay, 0.01);
    cr_assert_eq(c->training.grad_clip, 1.0);
    cr_assert_eq(c->training.entropy_weight, 0.01);
    cr_assert_eq(c->training.optimizer_type, ND_OPTIMIZER_MUON);
    cr_assert_eq(c->training.muon_momentum, suite ? 0.95 : 0.85);
    cr_assert_eq(c->training.schedule_type, 0); /* wsd */
    cr_assert_eq(c->training.stable_ratio, 0.8);
    cr_assert_eq(c->training.min_lr_ratio, 0.1);
    cr_assert_eq(c->model.ffn_mult, 3.5);
    if (c->training.use_mtp && c->training.mtp_form == ND_MTP_SHARED) {
        cr_assert_eq(c->training.mtp_n_tokens, 4);
        cr_assert_eq(c->training.mtp_weight, 0.2);
    }
    if (c->training.use_collider) {
        cr_assert_eq(c->training.collider_threshold, 0.3);
        cr_assert_eq(c->training.collider_sparsity, 0.35);
    }
}

static void assert_systems(const nd_config *c, int config)
{
    static const bool systems[CONFIGS][6] = {
        /* mtp, collider, asynchronous loader, 8 bits, GaLore, checkpointing */
        {false, false, false, false, false, false},
        {true, false, false, false, false, false},
        {true, true, true, true, false, false},
        {true, true, true, false, true, false},
        {true, true, true, true, true, true}};
    const bool found[6] = {c->training.use_mtp,          c->training.use_collider,
                           c->training.use_async_loader, nd_config_state_bits(c) < 32,
                           c->training.use_galore,       c->hardware.gradient_checkpointing};
    cr_assert_arr_eq(found, systems[config], sizeof found, "%s", names[config]);
}

Test(e3_configs, have_the_suites_values)
{
    for (int i = 0; i < CONFIGS; i++) {
        const nd_config *c = read_config("e3", names[i]);
        assert_common_values(c, true, i);
        assert_systems(c, i);
        cr_assert(c->model.vocab_size == 32000 && c->model.hidden_dim == 1024 &&
                  c->model.num_layers == 12 && c->model.num_heads == 16 &&
                  c->model.num_kv_heads == 4 && c->model.max_seq_len == 2048);
        cr_assert(c->training.total_steps == 10000 && c->training.seq_length == 2048 &&
                  c->training.warmup_steps == 1000);
        if (c->training.use_galore)
            cr_assert(c->training.galore_rank == 256 && c->training.galore_update_freq == 200);
        if (c->training.use_async_loader) {
            cr_assert_eq(c->training.num_workers, i == CONFIGS - 1 ? 6 : 4);
            cr_assert_eq(c->training.prefetch_batches, i == CONFIGS - 1 ? 12 : 8);
        }
    }
}

Test(e3_configs, the_small_ones_have_the_same_systems)
{
    for (int i = 0; i < CONFIGS; i++) {
        const nd_config *c = read_config("e3/small/suite", names[i]);
        assert_common_values(c, true, i);
        assert_systems(c, i);
        if (c->training.use_galore)
            cr_assert_eq(c->training.galore_rank, c->model.hidden_dim / 4);
        cr_assert_eq(c->training.mtp_form, ND_MTP_SHARED);
        c = read_config("e3/small", names[i]);
        assert_common_values(c, false, i);
        assert_systems(c, i);
        cr_assert_eq(c->training.mtp_form == ND_MTP_SHARED, i < 2);
        if (c->training.use_galore)
            cr_assert_leq(c->training.galore_rank, c->model.hidden_dim / 4);
    }
}

/* What a step with synthetic data says of the bytes of the matrices' state, and how many weights
 * they have. */
static double state_bytes(const char *name, double *weights)
{
    char output[4096];
    const int code = nd_test_shell(
        output, sizeof output,
        "cd %s && %s --config %s/configs/e3/small/%s.ini --run-dir %s --resume none --set "
        "data.dataset=synthetic --set data.n_samples=16 --set training.batch_size=2 --set "
        "training.micro_batch_size=1 --set logging.eval_samples=1 --total-steps 1 "
        "--set training.warmup_steps=0 --set logging.checkpoint_at_end=false >log 2>&1 && sed -n "
        "'s/.*\"matrix_state_bytes\":\\([0-9]*\\).*\"matrix_weights\":\\([0-9]*\\).*/\\1 "
        "\\2/p' %s/metrics.jsonl",
        nd_test_here.directory, ND_BINARY, ND_SOURCE_DIR, name, name, name);
    cr_assert_eq(code, 0, "%s: %s", name, output);
    double bytes = 0.0;
    cr_assert_eq(sscanf(output, "%lf %lf", &bytes, weights), 2, "%s: %s", name, output);
    return bytes;
}

Test(e3_configs, state_takes_the_part_of_fp32_muons_that_is_promised, .init = nd_test_run_setup,
     .fini = nd_test_run_teardown)
{
    double weights, more;
    const double whole = state_bytes("baseline", &weights);
    cr_assert_eq(whole, 4.0 * weights);
    const double of_8_bits = state_bytes("muon_8bit", &more);
    cr_assert_gt(more, 1.25 * weights, "its block for the token after the next counts too");
    cr_assert_leq(of_8_bits, 0.251 * 4.0 * more);
    cr_assert_leq(state_bytes("muon_4bit", &more), 0.1425 * 4.0 * more);
    cr_assert_leq(state_bytes("galore2", &more), 0.375 * whole);
    cr_assert_leq(state_bytes("full", &more), 0.05 * whole);
    cr_assert_gt(more, 1.25 * weights);
}

/* Beside the suite's: full.ini with thin messages, mtp_only.ini with a block for one
 * further token. */
Test(e3_configs, have_variants_that_differ_in_what_they_say)
{
    static const char *const sizes[] = {"e3", "e3/small"};
    for (int i = 0; i < 2; i++) {
        nd_config thin = *read_config(sizes[i], "full_thin"),
                  block = *read_config(sizes[i], "mtp_block");
        const nd_config *full = read_config(sizes[i], "full");
        cr_assert(thin.dist.grad_comm_dtype != full->dist.grad_comm_dtype &&
                  thin.dist.weight_sync != full->dist.weight_sync &&
                  thin.dist.embedding_sync != full->dist.embedding_sync);
        thin.dist = full->dist;
        thin.logging = full->logging;
        cr_assert_arr_eq(&thin, full, sizeof thin);
        const nd_config *shared = read_config(sizes[i], "mtp_only");
        cr_assert_eq(block.training.mtp_form, ND_MTP_SEQUENTIAL);
        cr_assert_eq(block.training.mtp_weight, 1.0);
        cr_assert_eq(block.training.mtp_n_tokens, 2);
        block.training.mtp_form = shared->training.mtp_form;
        block.training.mtp_n_tokens = shared->training.mtp_n_tokens;
        block.training.mtp_weight = shared->training.mtp_weight;
        block.logging = shared->logging;
        cr_assert_arr_eq(&block, shared, sizeof block);
    }
}

Test(e3_configs, what_the_suite_advises_to_change_changes_training, .init = nd_test_run_setup,
     .fini = nd_test_run_teardown)
{
    static const char *const full =
        "--resume none --set model.hidden_dim=64 --set training.use_mtp=true "
        "--set training.use_collider=true --set training.use_async_loader=true "
        "--set training.use_8bit_optim=true --set training.use_galore=true "
        "--set hardware.gradient_checkpointing=true --set training.entropy_weight=0.01 "
        "--set training.galore_rank=16 --set training.galore_update_freq=4 --total-steps 6";
    static const char *const changes[] = {"learning_rate=0.01", "warmup_steps=2",
                                          "entropy_weight=0.05", "galore_rank=24",
                                          "galore_update_freq=2"};
    char run[128], arguments[1024], before[65], after[65];
    snprintf(run, sizeof run, "%s/run", nd_test_here.directory);
    nd_test_train(0, 0, nd_test_here.config, run, full);
    snprintf(before, sizeof before, "%s", nd_test_state(run));
    nd_test_train(0, 0, nd_test_here.config, run, full);
    cr_assert_str_eq(nd_test_state(run), before);
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        snprintf(arguments, sizeof arguments, "%s --set training.%s", full, changes[i]);
        nd_test_train(0, 0, nd_test_here.config, run, arguments);
        snprintf(after, sizeof after, "%s", nd_test_state(run));
        cr_assert_eq(strlen(after), 64);
        cr_assert_str_neq(after, before, "%s changes nothing", changes[i]);
    }
}

Test(e3_configs, the_suites_claims_know_which_configuration_a_run_has, .init = nd_test_run_setup,
     .fini = nd_test_run_teardown)
{
    char output[4096], row[64];
    const int code = nd_test_shell(
        output, sizeof output,
        "{ cd %s && for n in baseline mtp_only muon_8bit galore2 full; do for d in e3 e3/small; do "
        "r=run_${n%%_*}_${d##*/}; mkdir -p $r; cp %s/configs/$d/$n.ini $r/config.ini; done; done; "
        "%s report run_* --claims claims.ini --out out >/dev/null && "
        "sed -n '/^## Loss/,/^## Speed/s/^| .run_[^|]*| \\([a-z0-9_]*\\) .*/\\1/p' out/REPORT.md | "
        "sort | uniq -c; }",
        nd_test_here.directory, ND_SOURCE_DIR, ND_BINARY);
    cr_assert_eq(code, 0, "%s", output);
    for (int i = 0; i < CONFIGS; i++) {
        snprintf(row, sizeof row, "2 %s\n", names[i]);
        cr_assert(strstr(output, row) != NULL, "no \"%s\" in %s", row, output);
    }
}
