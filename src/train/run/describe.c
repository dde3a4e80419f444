#include "train/run/describe.h"

#include "optim/mtp_schedule.h"
#include "train/approximations.h"
#include "train/rounds.h"

#include <string.h>

/* "attn_k" of "blk.0.attn_k.weight". */
static void short_name(const nd_param *param, char name[ND_PARAM_NAME_MAX])
{
    snprintf(name, ND_PARAM_NAME_MAX, "%s", strchr(strchr(param->name, '.') + 1, '.') + 1);
    *strchr(name, '.') = '\0';
}

static void describe_galore(nd_run *run)
{
    const nd_params *params = &run->model->params;
    const nd_config *c = &run->config;
    const nd_projectors *projectors = nd_optimizer_projectors(nd_run_worker(run, 0)->optimizer);
    char stay[512] = "", name[ND_PARAM_NAME_MAX];
    size_t used = 0;
    int64_t matrices = 0;
    for (int64_t i = 0; i < params->count; i++) {
        const nd_param *p = &params->list[i];
        const bool projected = nd_projectors_shape(projectors, i) != NULL;
        if (p->role != ND_ROLE_TERNARY || (p->layer < 0 && !projected))
            continue;
        matrices++;
        if (p->layer > 0 || projected)
            continue;
        short_name(p, name);
        used +=
            (size_t)snprintf(stay + used, sizeof stay - used, "%sblk.*.%s (%lld)", used ? ", " : "",
                             name, (long long)(p->rows < p->cols ? p->rows : p->cols));
    }
    nd_log_line(&run->log,
                "galore  rank %lld in %lld of %lld matrices, a new subspace every %lld steps, at "
                "most %lld of them a step; projectors in %d bits",
                (long long)c->training.galore_rank, (long long)nd_projectors_count(projectors),
                (long long)matrices, (long long)c->training.galore_update_freq,
                (long long)nd_projectors_per_step(projectors), nd_config_projector_bits(c));
    if (used)
        nd_log_line(&run->log,
                    "galore  galore_rank %lld is not below the smaller side of %s: these stay full "
                    "rank",
                    (long long)c->training.galore_rank, stay);
}

static void describe_rounds(nd_run *run)
{
    const nd_config *c = &run->config;
    const nd_rounds *r = run->rounds;
    char place[64], dtype[32];
    nd_config_value(c, "dist", "outer_comm_dtype", dtype, sizeof dtype);
    if (r->carried > 1)
        snprintf(place, sizeof place, "%d on each rank", r->carried);
    else
        snprintf(place, sizeof place, "%d rank%s each", r->inside->size, nd_s(r->inside->size));
    nd_log_line(&run->log,
                "workers %lld, %s, with %lld sequences a step each; an outer step every %lld "
                "(rate %g, momentum %g, changes in %s)",
                (long long)r->workers, place, (long long)(c->training.batch_size / r->workers),
                (long long)c->dist.sync_every, c->dist.outer_lr, c->dist.outer_momentum, dtype);
}

static void describe_memory(nd_run *run)
{
    char memory[512] = "";
    size_t used = 0, loader = nd_run_loader_bytes(run), total = run->start.resident + loader;
    for (int i = 0; i < ND_MEMORY_COUNT; i++) {
        used += (size_t)snprintf(memory + used, sizeof memory - used, "%s %.1f, ",
                                 nd_memory_category_name((nd_memory_category)i),
                                 (double)run->arenas[i].size / 0x1p20);
        total += run->arenas[i].size;
    }
    snprintf(memory + used, sizeof memory - used, "loader %.1f, ", (double)loader / 0x1p20);
    nd_log_line(&run->log, "memory  %sprogram %.1f; %.1f MiB on rank 0 before the first step",
                memory, (double)run->start.resident / 0x1p20, (double)total / 0x1p20);
    if (run->config.hardware.recompute_attention && !run->config.hardware.gradient_checkpointing)
        nd_log_line(&run->log, "warning: recompute_attention = true saves nothing without "
                               "gradient_checkpointing = true");
}

/* A run whose data ends before its schedule does. */
static void describe_schedule(nd_run *run)
{
    const long long warmup = run->config.training.warmup_steps;
    const long long total = run->config.training.total_steps, last = nd_run_last_step(run);
    if (last < total)
        nd_log_line(&run->log,
                    "warning: epochs = %lld ends the run after step %lld, before total_steps = "
                    "%lld: the learning rate and whatever else follows a schedule are cut off "
                    "there; total_steps = %lld would fit them to the run",
                    (long long)run->config.data.epochs, last, total, last);
    if (warmup > last)
        nd_log_line(&run->log,
                    "warning: warmup_steps = %lld is more than the run's %lld steps: the peak "
                    "learning rate is never reached",
                    warmup, last);
    if (run->rounds && run->config.dist.sync_every > last)
        nd_log_line(&run->log,
                    "warning: sync_every = %lld is more than the run's %lld steps: its only round "
                    "ends with the last one",
                    (long long)run->config.dist.sync_every, last);
}

/* Whether Collider filters in one of the first `last` steps. */
static bool filters_ever(const nd_config *c, int64_t last)
{
    const double first = c->training.collider_from * (double)c->training.total_steps;
    for (int64_t step = (int64_t)first; step < last && (double)step < first + 2.0; step++)
        if (nd_config_filters(c, step))
            return true;
    return false;
}

static void describe_collider(nd_run *run)
{
    const nd_config *c = &run->config;
    const int64_t tokens = run->model->config.micro_batch * run->model->config.seq_length;
    const long long last = nd_run_last_step(run);
    if (!c->training.use_collider)
        return;
    if (!filters_ever(c, last))
        nd_log_line(&run->log,
                    "warning: use_collider = true filters nothing: none of the run's %lld steps "
                    "lies between collider_from = %g and collider_until = %g",
                    last, c->training.collider_from, c->training.collider_until);
    else if (c->training.collider_sparsity * (double)tokens < 1.0)
        nd_log_line(&run->log,
                    "warning: use_collider = true filters nothing: collider_sparsity = %g of a "
                    "micro-batch's %lld token%s is less than one",
                    c->training.collider_sparsity, (long long)tokens, nd_s(tokens));
}

static void describe_further_tokens(nd_run *run)
{
    const nd_config *c = &run->config;
    float weights[ND_OFFSETS_MAX];
    int64_t trained = 0;
    nd_mtp_weights(c, 0, weights); /* later ones are not larger */
    for (int64_t j = 1; j < ND_OFFSETS_MAX; j++)
        trained += weights[j] != 0.0f;
    if (c->training.use_mtp && trained == 0)
        nd_log_line(&run->log,
                    "warning: use_mtp = true trains no further tokens: mtp_weight = %g, "
                    "mtp_until = %g",
                    c->training.mtp_weight, c->training.mtp_until);
    else if (c->training.use_mtp && c->training.mtp_n_tokens > c->training.seq_length)
        nd_log_line(&run->log,
                    "warning: mtp_n_tokens = %lld is more than seq_length = %lld: no position has "
                    "the tokens beyond, and what predicts them is never trained",
                    (long long)c->training.mtp_n_tokens, (long long)c->training.seq_length);
}

void nd_describe_run(nd_run *run)
{
    const nd_model_config *c = &run->model->config;
    const nd_identity *identity = &run->identity;
    nd_log_line(&run->log, "run     %s; configuration %.12s, data %.12s", identity->run_id,
                identity->config_sha256, identity->data_sha256);
    nd_log_line(&run->log, "program nanochat_dist %s, commit %s, on host %s, launcher %s",
                identity->version, identity->commit, identity->host, identity->launcher);
    nd_log_line(&run->log, "build   %s; %s", identity->build, identity->libraries);
    nd_log_line(&run->log,
                "model   %s, %lld layer%s x %lld, %lld heads (%lld kv), ffn %lld, vocabulary %lld: "
                "%.2fM parameters",
                c->arch == ND_ARCH_BITNET ? "bitnet" : "llama", (long long)c->num_layers,
                nd_s(c->num_layers), (long long)c->hidden_dim, (long long)c->num_heads,
                (long long)c->num_kv_heads, (long long)c->ffn_dim, (long long)c->vocab_size,
                (double)nd_params_total(&run->model->params) * 1e-6);
    nd_log_line(&run->log,
                "batch   %lld sequence%s x %lld tokens in %lld micro-batch%s, over %d rank%s (%s)",
                (long long)run->config.training.batch_size, nd_s(run->config.training.batch_size),
                (long long)c->seq_length, (long long)run->micro_batches,
                run->micro_batches == 1 ? "" : "es", run->comm->size, nd_s(run->comm->size),
                run->comm->ops.name);
    nd_log_line(&run->log, "compute %s; precision %s, backward %s", run->backend->traits.device,
                run->config.hardware.precision == ND_PRECISION_BF16 ? "bf16" : "fp32",
                run->config.hardware.backward_precision == ND_BACKWARD_INT8 ? "int8" : "the same");
    if (run->config.data.dataset == ND_DATASET_SYNTHETIC)
        nd_log_line(&run->log, "data    synthetic, %lld sequences",
                    (long long)nd_dataset_window_count(run->data.train));
    else
        nd_log_line(&run->log, "data    %s: %.2fM tokens to train on, %.2fM held out",
                    run->config.data.data_path,
                    (double)nd_dataset_token_count(run->data.train) * 1e-6,
                    run->data.val ? (double)nd_dataset_token_count(run->data.val) * 1e-6 : 0.0);
    if (run->data.short_held_out > 0)
        nd_log_line(&run->log,
                    "data    nothing to evaluate on: none of the held-out shards (%lld tokens) is "
                    "as long as a window, seq_length + 1 = %lld; pack with a larger --val-fraction",
                    (long long)run->data.short_held_out, (long long)c->seq_length + 1);
    if (run->rounds)
        describe_rounds(run);
    if (run->config.training.use_galore)
        describe_galore(run);
    if (run->config.old_names[0])
        nd_log_line(&run->log, "config  old names, still accepted: %s", run->config.old_names);
    char approximate[128];
    nd_wire_approximations(&run->config, run->comm->size, approximate, sizeof approximate);
    if (approximate[0])
        nd_log_line(&run->log, "wire    approximate: %s", approximate);
    if (nd_gradient_reducer_immediate(nd_run_worker(run, 0)->reducer))
        nd_log_line(&run->log, "update  each layer as its gradient is ready (grad_clip = 0 and one "
                               "micro-batch a rank)");
    describe_memory(run);
    describe_schedule(run);
    describe_collider(run);
    describe_further_tokens(run);
}
