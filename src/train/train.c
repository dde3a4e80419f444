#include "train/train.h"

#include "core/backend/threads.h"
#include "core/base/clock.h"
#include "train/checkpoint/checkpoint.h"
#include "train/checkpoint/checkpoint_save.h"
#include "train/evaluate.h"
#include "train/fault_points.h"
#include "train/log/metrics.h"
#include "train/log/progress.h"
#include "train/replica_check.h"
#include "train/resume.h"
#include "train/resume_check.h"
#include "train/run/describe.h"
#include "train/run/run_backend.h"
#include "train/run/run_directory.h"
#include "train/run/run_groups.h"
#include "train/run/run_lock.h"
#include "train/save_attempts.h"
#include "train/signals.h"
#include "train/snapshot/snapshot.h"
#include "train/step.h"
#include "train/thread_tuning.h"

#include <math.h>
#include <stdlib.h>

enum { PEAK_SIDE = 512, PEAK_SIDE_MAX = 1024, PEAK_ROUNDS = 3 };

/* The highest FLOP/s of some products, small ones if they take long enough to measure. */
static nd_status best_rate(nd_backend *b, nd_dtype type, void *const memory[3], double *best)
{
    const double enough = 2e-3;
    double seconds = 0.0;
    for (int64_t side = PEAK_SIDE; side <= PEAK_SIDE_MAX && seconds < enough; side *= 2)
        for (int round = 0; round < PEAK_ROUNDS; round++) {
            const double start = nd_seconds();
            ND_TRY(b->ops.gemm(b, nd_view_of(memory[0], type, side, side),
                               nd_cview_of(memory[1], type, side, side), false,
                               nd_cview_of(memory[2], type, side, side), false, 1.0f, 0.0f));
            ND_TRY(b->ops.synchronize(b));
            seconds = nd_seconds() - start;
            *best = fmax(*best, 2.0 * (double)(side * side * side) / seconds);
        }
    return ND_OK;
}

/* Measures the FLOP/s of one rank's dense product in the compute type, the reference of mfu. Uses
 * its own backend, so that the run's workspace is not affected. */
static nd_status measure_peak(nd_run *run)
{
    nd_backend *b;
    const nd_dtype type = run->model->config.compute;
    const size_t bytes = (size_t)PEAK_SIDE_MAX * PEAK_SIDE_MAX * nd_dtype_size(type);
    void *memory[3] = {NULL};
    ND_TRY(nd_run_create_backend(&run->config, run->comm, &b));
    nd_status status = ND_OK;
    for (int i = 0; i < 3; i++)
        ND_IF_OK(b->ops.allocate(b, bytes, &memory[i]));
    ND_IF_OK(best_rate(b, type, memory, &run->start.peak_flops));
    for (int i = 0; i < 3; i++)
        b->ops.release(b, memory[i], bytes);
    nd_backend_destroy(b);
    return status;
}

static bool due(int64_t step, int64_t interval, int64_t last)
{
    return step == last || (interval > 0 && step % interval == 0);
}

/* Every rank raises this same error. */
static nd_status give_up(const nd_run *run, const nd_step_result *step, const char *why)
{
    const int64_t skips = run->health.consecutive_skips, rollbacks = run->health.rollbacks;
    return nd_error_mark_shared(ND_FAIL(
        ND_ENUMERIC,
        "%s; %lld step%s skipped in a row ([training] max_skipped_steps = %lld), and the run went "
        "back %lld time%s (max_rollbacks = %lld), %s; a lower learning_rate (0.01) or a longer "
        "warm-up usually helps",
        step->skipped_because, (long long)skips, nd_s(skips),
        (long long)run->config.training.max_skipped_steps, (long long)rollbacks, nd_s(rollbacks),
        (long long)run->config.training.max_rollbacks, why));
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
static void report_step(nd_run *run, nd_metrics *metrics, nd_progress_state *progress,
                        const nd_step_result *step, const nd_evaluation *evaluated)
{
    char line[512];
    if (run->comm->rank != 0)
        return;
    nd_metrics_write(metrics, run, step, evaluated, progress->tokens_per_second,
                     progress->last_step);
    nd_progress_line(progress, run, step, line, sizeof line);
    if (evaluated || due(run->position.step, run->config.logging.log_interval, progress->last_step))
        nd_log_progress(&run->log, line);
    else
        nd_log_redraw(&run->log, line);
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
        const nd_slow_rank *slow = &run->timing.slow[r];
        if (slow->steps == ND_SLOW_STEPS)
            nd_log_line(&run->log,
                        "slow    rank %d took at least 20 %% longer than the median rank in each "
                        "of the last %d steps, mostly in %s: %.0f ms of %.0f against %.0f",
                        r, ND_SLOW_STEPS, nd_phase_name(slow->worst), slow->worst_ms, slow->own_ms,
                        step->times.own.median);
    }
}

/* Only where nobody has set the number of threads. */
static void begin_tuning(const nd_run *run, nd_thread_tuning *tuning)
{
    const bool set =
        run->config.hardware.threads > 0 || nd_machine_omp_threads(getenv("OMP_NUM_THREADS")) > 0;
    nd_thread_tuning_begin(tuning, set ? 1 : nd_cpu_backend_threads(run->backend),
                           run->position.step);
}

/* A step, and the number of threads for the next. */
static nd_status tuned_step(nd_run *run, nd_thread_tuning *tuning, nd_step_result *step)
{
    const int64_t before = nd_preemptions();
    const int threads = tuning->threads;
    ND_TRY(nd_step_run(run, nd_signals_stop_requested(), step));
    if (tuning->most == 1)
        return ND_OK;
    const double seconds = 1e-3 * (step->step_ms - step->comm_wait_ms - step->data_wait_ms);
    const bool trial = tuning->before > 0;
    const int next =
        nd_thread_tuning_next(tuning, run->position.step, seconds, nd_preemptions() - before);
    if (next != threads)
        nd_cpu_backend_set_threads(run->backend, next);
    if (trial && !tuning->before && next == threads)
        nd_log_line(&run->log, "threads %d of %d: %s", next, tuning->most,
                    next < tuning->most ? "faster here now, beside other work"
                                        : "faster again, with less other work");
    return ND_OK;
}

static nd_status step_loop(nd_run *run, nd_metrics *metrics)
{
    const nd_config *c = &run->config;
    int64_t last = nd_run_last_step(run);
    nd_progress_state progress;
    nd_thread_tuning tuning;
    begin_tuning(run, &tuning);
    nd_progress_begin(&progress, run, last);
    while (run->position.step < last) {
        nd_step_result step = {0};
        nd_evaluation evaluation, *evaluated = NULL;
        ND_TRY(tuned_step(run, &tuning, &step));
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
        report_step(run, metrics, &progress, &step, evaluated);
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
    nd_log_line(&run->log, "done    %lld step%s, %.2fM tokens", (long long)run->position.step,
                nd_s(run->position.step), (double)run->position.tokens * 1e-6);
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
        nd_describe_run(run);
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

/* Everything before the first step. */
static nd_status start(nd_run *run, const nd_train_options *options, nd_run_locks *locks)
{
    nd_comm *comm = run->comm;
    ND_TRY(nd_identity_compare_programs(&options->config, options->resume, comm));
    ND_TRY(
        nd_comm_agree(comm, comm->rank == 0 ? open_directory(run, options->resume, locks) : ND_OK));
    ND_TRY(nd_run_locks_compare(&run->config, locks, comm));
    ND_TRY(nd_run_attach(&options->config, comm, run));
    ND_TRY(nd_run_choose_groups(run));
    ND_TRY(nd_run_build(run));
    ND_TRY(identify(run));
    ND_TRY(nd_comm_agree(comm, prepare(run, options->resume)));
    nd_run_locks_name(locks, run->identity.run_id);
    run->saving.locks = comm->rank == 0 ? locks : NULL;
    return ND_OK;
}

nd_status nd_train(const nd_train_options *options, nd_comm *comm)
{
    nd_run run = {.config = options->config, .saving = {.step = -1}};
    nd_metrics metrics = {0};
    nd_run_locks locks = {0};
    ND_TRY(nd_signals_expect());
    run.comm = comm;
    comm->timeout_seconds = options->config.dist.timeout_seconds;
    comm->stop_requested = nd_signals_stop_requested;
    comm->overlap = options->config.dist.overlap_grad_reduce;
    comm->grad_compression = (nd_grad_compression)options->config.dist.grad_compression;
    run.start.new_data = options->new_data;
    nd_status status = start(&run, options, &locks);
    if (status == ND_OK) {
        status = step_loop(&run, &metrics);
        if (may_save(&run, status))
            status = nd_save_before_error(&run, status);
        status = end_snapshots(&run, status);
    }
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
