#include "train/train.h"

#include "core/base/clock.h"
#include "train/approximations.h"
#include "train/checkpoint/checkpoint.h"
#include "train/checkpoint/checkpoint_save.h"
#include "train/evaluate.h"
#include "train/fault_points.h"
#include "train/metrics.h"
#include "train/progress.h"
#include "train/replica_check.h"
#include "train/resume.h"
#include "train/resume_check.h"
#include "train/rounds.h"
#include "train/run_backend.h"
#include "train/run_directory.h"
#include "train/run_groups.h"
#include "train/run_lock.h"
#include "train/save_attempts.h"
#include "train/signals.h"
#include "train/snapshot/snapshot.h"
#include "train/step.h"

#include <string.h>

/* Measures the FLOP/s of one rank's dense product in the compute type, the reference of mfu. Uses
 * its own backend, so that the run's workspace is not affected, and a small product if that takes
 * long enough to measure. */
static nd_status measure_peak(nd_run *run)
{
    enum { SIDE = 512, SIDE_MAX = 1024, ROUNDS = 3 };
    const double enough = 2e-3;
    nd_backend *b;
    const nd_dtype type = run->model->config.compute;
    const size_t bytes = (size_t)SIDE_MAX * SIDE_MAX * nd_dtype_size(type);
    void *memory[3] = {NULL};
    nd_status status = ND_OK;
    double best = 0.0, seconds = 0.0;
    ND_TRY(nd_run_create_backend(&run->config, run->comm, &b));
    for (int i = 0; i < 3; i++)
        ND_TRY_GOTO(b->ops.allocate(b, bytes, &memory[i]), done);
    for (int64_t side = SIDE; side <= SIDE_MAX && seconds < enough; side *= 2)
        for (int round = 0; round < ROUNDS; round++) {
            const double start = nd_seconds();
            ND_TRY_GOTO(b->ops.gemm(b, nd_view_of(memory[0], type, side, side),
                                    nd_cview_of(memory[1], type, side, side), false,
                                    nd_cview_of(memory[2], type, side, side), false, 1.0f, 0.0f),
                        done);
            ND_TRY_GOTO(b->ops.synchronize(b), done);
            seconds = nd_seconds() - start;
            const double rate = 2.0 * (double)(side * side * side) / seconds;
            best = rate > best ? rate : best;
        }
    run->start.peak_flops = best;
done:
    for (int i = 0; i < 3; i++)
        b->ops.release(b, memory[i], bytes);
    nd_backend_destroy(b);
    return status;
}

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
    static const char *const wires[] = {"fp32", "int8", "int4"};
    char place[64];
    if (r->carried > 1)
        snprintf(place, sizeof place, "%d on each rank", r->carried);
    else
        snprintf(place, sizeof place, "%d rank%s each", r->inside->size,
                 r->inside->size == 1 ? "" : "s");
    nd_log_line(&run->log,
                "workers %lld, %s, with %lld sequences a step each; an outer step every %lld "
                "(rate %g, momentum %g, changes in %s)",
                (long long)r->workers, place, (long long)(c->training.batch_size / r->workers),
                (long long)c->dist.sync_every, c->dist.outer_lr, c->dist.outer_momentum,
                wires[c->dist.outer_comm_dtype]);
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
}

static void describe(nd_run *run)
{
    const nd_model_config *c = &run->model->config;
    const nd_identity *identity = &run->identity;
    nd_log_line(&run->log, "run     %s; configuration %.12s, data %.12s", identity->run_id,
                identity->config_sha256, identity->data_sha256);
    nd_log_line(&run->log, "program nanochat_dist %s, commit %s, on host %s, launcher %s",
                identity->version, identity->commit, identity->host, identity->launcher);
    nd_log_line(&run->log, "build   %s; %s", identity->build, identity->libraries);
    nd_log_line(&run->log,
                "model   %s, %lld layers x %lld, %lld heads (%lld kv), ffn %lld, vocabulary %lld: "
                "%.2fM parameters",
                c->arch == ND_ARCH_BITNET ? "bitnet" : "llama", (long long)c->num_layers,
                (long long)c->hidden_dim, (long long)c->num_heads, (long long)c->num_kv_heads,
                (long long)c->ffn_dim, (long long)c->vocab_size,
                (double)nd_params_total(&run->model->params) * 1e-6);
    nd_log_line(&run->log,
                "batch   %lld sequences x %lld tokens in %lld micro-batches, over %d rank%s (%s)",
                (long long)run->config.training.batch_size, (long long)c->seq_length,
                (long long)run->micro_batches, run->comm->size, run->comm->size == 1 ? "" : "s",
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
    if (run->config.training.warmup_steps > run->config.training.total_steps)
        nd_log_line(&run->log,
                    "warning: warmup_steps = %lld is more than total_steps = %lld: the "
                    "peak learning rate is never reached",
                    (long long)run->config.training.warmup_steps,
                    (long long)run->config.training.total_steps);
}

static bool due(int64_t step, int64_t interval, int64_t last)
{
    return step == last || (interval > 0 && step % interval == 0);
}

/* Every rank raises this same error. */
static nd_status give_up(const nd_run *run, const nd_step_result *step, const char *why)
{
    const nd_config *c = &run->config;
    return nd_error_mark_shared(ND_FAIL(
        ND_ENUMERIC,
        "%s; %lld steps in a row were skipped ([training] max_skipped_steps = %lld) and the "
        "run went back %lld times (max_rollbacks = %lld), %s; a lower learning_rate (0.01) "
        "or a longer warm-up usually helps",
        step->skipped_because, (long long)run->health.consecutive_skips,
        (long long)c->training.max_skipped_steps, (long long)run->health.rollbacks,
        (long long)c->training.max_rollbacks, why));
}

/* Returns to the newest checkpoint and skips the data used since; keeps the statistics. */
static nd_status roll_back(nd_run *run, const nd_step_result *step, nd_metrics *metrics)
{
    char path[ND_CHECKPOINT_PATH_MAX];
    const nd_position position = run->position;
    const nd_health health = run->health;
    ND_TRY(nd_save_attempt_finish(run, false));
    ND_TRY(nd_snapshots_drop(run, -1));
    if (health.rollbacks >= run->config.training.max_rollbacks)
        return give_up(run, step, "no more are allowed");
    nd_comm_set_phase(run->comm, run->position.step, "roll back");
    ND_TRY(nd_comm_agree(run->comm, nd_run_directory_confirm(run)));
    ND_TRY(nd_resume_choose(run, "auto", path));
    if (!path[0])
        return give_up(run, step, "and there is no checkpoint to go back to");
    ND_TRY(nd_checkpoint_restore(run, path));
    nd_position_roll_back(&run->position, &position);
    nd_health_roll_back(&run->health, &health);
    nd_log_line(&run->log,
                "rolled back to %s at step %lld, continuing with the data from sample %lld", path,
                (long long)run->position.step, (long long)run->position.next_sample);
    const nd_status status = nd_run_start_loader(run);
    if (run->comm->rank == 0) {
        nd_metrics_close(metrics);
        nd_metrics_open(run, metrics);
    }
    return nd_comm_agree(run->comm, status);
}

static bool must_roll_back(const nd_run *run, const nd_step_result *step)
{
    return step->skipped && (step->partly_updated || run->health.consecutive_skips >
                                                         run->config.training.max_skipped_steps);
}

/* Every replica_check_interval steps, and before each checkpoint that is due. */
static bool must_check(const nd_run *run, int64_t last)
{
    const nd_config *c = &run->config;
    const int64_t end = c->logging.checkpoint_at_end ? last : -1;
    return c->dist.replica_check_interval > 0 &&
           (run->position.step % c->dist.replica_check_interval == 0 ||
            due(run->position.step, c->logging.checkpoint_interval, end));
}

/* The first step has shown that this run can train: takes over the directory. */
static nd_status claim_directory(nd_run *run, nd_metrics *metrics)
{
    nd_status status = nd_run_directory_confirm(run);
    if (status == ND_OK && run->comm->rank == 0)
        status = nd_run_directory_open(run, run->start.sets_aside || !run->restored.any);
    ND_TRY(nd_comm_agree(run->comm, status));
    if (run->comm->rank == 0)
        nd_metrics_open(run, metrics);
    run->start.has_directory = true;
    return nd_snapshots_drop(run, run->restored.any ? run->restored.step : -1);
}

static nd_status evaluate(nd_run *run, nd_progress_state *progress, nd_evaluation *evaluation)
{
    nd_comm_set_phase(run->comm, run->position.step, "evaluate");
    nd_fault_point(run->comm, "evaluate");
    ND_TRY(nd_evaluate(run->model, run->data.val, run->comm, run->config.logging.eval_samples,
                       evaluation));
    progress->val_bpb = evaluation->bits_per_byte;
    progress->val_loss = evaluation->loss;
    return ND_OK;
}

/* Rank 0's line of the metrics, and of the log where one is due. */
static nd_status report_step(nd_run *run, nd_metrics *metrics, nd_progress_state *progress,
                             const nd_step_result *step, const nd_evaluation *evaluated)
{
    char line[512];
    if (run->comm->rank != 0)
        return ND_OK;
    ND_TRY(nd_metrics_write(metrics, run, step, evaluated, progress->tokens_per_second,
                            progress->last_step));
    nd_progress_line(progress, run, step, line, sizeof line);
    if (evaluated || due(run->position.step, run->config.logging.log_interval, progress->last_step))
        nd_log_progress(&run->log, line);
    else
        nd_log_redraw(&run->log, line);
    return ND_OK;
}

static nd_status save_if_due(nd_run *run, const nd_step_result *step, int64_t last)
{
    const nd_config *c = &run->config;
    const int64_t end = c->logging.checkpoint_at_end ? last : -1;
    if (step->stop_requested && run->position.step < last) {
        ND_TRY(nd_save_last(run));
        nd_log_line(&run->log,
                    "stopped on a signal after step %lld; start again with --resume auto",
                    (long long)run->position.step);
        return ND_ESTOPPED;
    }
    if (!due(run->position.step, c->logging.checkpoint_interval, end))
        return ND_OK;
    return run->position.step < last ? nd_save_attempt(run, c->logging.checkpoint_async)
                                     : nd_save_last(run);
}

/* Reports ranks that slow down the others. All ranks detect them; one logs them. */
static void report_slow_ranks(nd_run *run, const nd_step_result *step)
{
    for (int r = 0; r < run->comm->size; r++) {
        const nd_slow_rank *slow = &run->slow[r];
        if (slow->steps == ND_SLOW_STEPS)
            nd_log_line(&run->log,
                        "slow    rank %d took at least 20 %% longer than the median rank in each "
                        "of the last %d steps, mostly in %s: %.0f ms of %.0f against %.0f",
                        r, ND_SLOW_STEPS, nd_phase_name(slow->worst), slow->worst_ms, slow->own_ms,
                        step->times.own.median);
    }
}

static nd_status step_loop(nd_run *run, nd_metrics *metrics)
{
    const nd_config *c = &run->config;
    int64_t last = nd_run_last_step(run);
    nd_progress_state progress;
    nd_progress_begin(&progress, run, last);
    while (run->position.step < last) {
        nd_step_result step = {0};
        nd_evaluation evaluation, *evaluated = NULL;
        ND_TRY(nd_step_run(run, nd_signals_stop_requested(), &step));
        if (!run->start.has_directory)
            ND_TRY(claim_directory(run, metrics));
        nd_progress_advance(&progress, run, &step);
        report_slow_ranks(run, &step);
        if (step.save_ready)
            ND_TRY(nd_save_attempt_advance(run));
        if (step.snapshot_ready)
            ND_TRY(nd_snapshot_advance(run));
        if (step.skipped)
            nd_log_line(&run->log, "skipped %s; %lld in a row, %lld in all", step.skipped_because,
                        (long long)run->health.consecutive_skips, (long long)run->health.skipped);
        if (must_roll_back(run, &step)) {
            ND_TRY(roll_back(run, &step, metrics));
            last = nd_run_last_step(run);
            nd_progress_begin(&progress, run, last);
            continue;
        }
        if (must_check(run, last))
            ND_TRY(nd_replica_check(run));
        if (run->data.val && due(run->position.step, c->logging.eval_interval, last)) {
            ND_TRY(evaluate(run, &progress, &evaluation));
            evaluated = &evaluation;
        }
        ND_TRY(report_step(run, metrics, &progress, &step, evaluated));
        ND_TRY(save_if_due(run, &step, last));
        if (c->logging.snapshot_interval > 0 && run->position.step < last &&
            run->position.step % c->logging.snapshot_interval == 0)
            ND_TRY(nd_snapshot_begin(run));
    }
    if (!run->start.has_directory)
        ND_TRY(claim_directory(run, metrics));
    /* A snapshot that leaves nothing to train is on no disk yet. */
    if (run->restored.any && run->saving.step < 0 && run->position.step == run->restored.step)
        ND_TRY(nd_save_last(run));
    ND_TRY(nd_save_attempt_finish(run, true));
    nd_log_line(&run->log, "done    %lld steps, %.2fM tokens", (long long)run->position.step,
                (double)run->position.tokens * 1e-6);
    return ND_OK;
}

/* A run that resumes no checkpoint, or one without a run id, gets an id. */
static nd_status name_run(nd_run *run)
{
    char *id = run->identity.run_id;
    nd_status status = ND_OK;
    if (run->restored.any && id[0])
        return ND_OK;
    if (run->comm->rank == 0)
        status = nd_run_id_create(id);
    ND_TRY(nd_comm_agree(run->comm, status));
    return run->comm->ops.broadcast(run->comm, id, ND_RUN_ID_SIZE, 0);
}

/* Everything that can fail before files are moved. */
static nd_status prepare(nd_run *run, const char *resume)
{
    nd_comm_set_phase(run->comm, 0, "resume");
    ND_TRY(nd_snapshots_create(run));
    ND_TRY(nd_resume(run, resume));
    ND_TRY(name_run(run));
    ND_TRY(nd_comm_agree(run->comm, run->comm->rank > 0 || run->start.sets_aside
                                        ? ND_OK
                                        : nd_resume_check_directory(run)));
    ND_TRY(nd_snapshots_start(run));
    ND_TRY(measure_peak(run));
    ND_TRY(nd_run_start_loader(run));
    if (run->comm->rank == 0)
        describe(run);
    return ND_OK;
}

/* Errors known to all ranks after which the weights are those of the last complete step. Not
 * ND_ECHECKPOINT, which is a failed save, nor ND_ENUMERIC, after which weights are unsound. */
static bool may_save(const nd_run *run, nd_status status)
{
    return run->start.has_directory && nd_error_get()->shared &&
           (status == ND_EDATA || status == ND_EIO || status == ND_ENOMEM);
}

/* Rank 0. Adopts the id of the run in the directory. */
static nd_status open_directory(nd_run *run, const char *resume, nd_run_locks *locks)
{
    ND_TRY(nd_identity_create(&run->config, &run->identity));
    ND_TRY(nd_run_locks_acquire(&run->config, locks));
    ND_TRY(nd_run_directory_check(run));
    ND_TRY(nd_resume_sets_aside(&run->config, resume, &run->start.sets_aside));
    return run->start.sets_aside
               ? ND_OK
               : nd_run_id_read(run->config.logging.run_dir, run->identity.run_id, NULL);
}

/* Makes the run's identity the same on all ranks. */
static nd_status identify(nd_run *run)
{
    nd_comm *comm = run->comm;
    nd_identity *identity = &run->identity;
    ND_TRY(comm->ops.broadcast(comm, identity, sizeof *identity, 0));
    ND_TRY(nd_comm_agree(comm, nd_identity_add_data(identity, run->data.train, run->data.val,
                                                    (uint64_t)run->config.training.seed)));
    return nd_identity_compare_data(identity, comm);
}

/* Drops snapshots at an end that is not resumed from them: a checkpoint is newer, or state
 * is bad. */
static nd_status end_snapshots(nd_run *run, nd_status status)
{
    const nd_error error = *nd_error_get();
    if (status == ND_OK || status == ND_ESTOPPED || (status == ND_ENUMERIC && error.shared)) {
        const nd_status dropped = nd_snapshots_drop(run, -1);
        if (dropped == ND_OK)
            nd_snapshots_list(run, -1, true);
        nd_error_set(&error);
        return status == ND_OK ? dropped : status;
    }
    return status;
}

nd_status nd_train(const nd_train_options *options, nd_comm *comm)
{
    nd_run run = {.config = options->config, .saving = {.step = -1}};
    nd_metrics metrics = {0};
    nd_run_locks locks = {0};
    nd_status status = ND_OK;
    ND_TRY(nd_signals_expect());
    run.comm = comm;
    comm->timeout_seconds = options->config.dist.timeout_seconds;
    comm->stop_requested = nd_signals_stop_requested;
    comm->overlap = options->config.dist.overlap_grad_reduce;
    comm->grad_compression = (nd_grad_compression)options->config.dist.grad_compression;
    run.start.new_data = options->new_data;
    ND_TRY_GOTO(nd_identity_compare_programs(&options->config, options->resume, comm), done);
    if (comm->rank == 0)
        status = open_directory(&run, options->resume, &locks);
    ND_TRY_GOTO(nd_comm_agree(comm, status), done);
    ND_TRY_GOTO(nd_run_locks_compare(&run.config, &locks, comm), done);
    ND_TRY_GOTO(nd_run_attach(&options->config, comm, &run), done);
    ND_TRY_GOTO(nd_run_choose_groups(&run), done);
    ND_TRY_GOTO(nd_run_build(&run), done);
    ND_TRY_GOTO(identify(&run), done);
    ND_TRY_GOTO(nd_comm_agree(comm, prepare(&run, options->resume)), done);
    nd_run_locks_name(&locks, run.identity.run_id);
    run.saving.locks = comm->rank == 0 ? &locks : NULL;
    status = step_loop(&run, &metrics);
    if (may_save(&run, status))
        status = nd_save_before_error(&run, status);
    status = end_snapshots(&run, status);
done:
    nd_metrics_close(&metrics);
    nd_run_directory_close(&run);
    nd_save_abandon(&run);
    /* Else the job is aborted, and the thread that communicates may still use the run's memory. */
    if (!nd_comm_fails_alone(comm, status)) {
        nd_snapshots_destroy(&run);
        nd_run_destroy(&run);
    }
    nd_fault_point(comm, "torn_down");
    nd_run_locks_release(&locks);
    return status;
}
