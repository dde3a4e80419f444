#include "train/step.h"

#include "core/base/clock.h"
#include "core/model/mtp.h"
#include "optim/mtp_schedule.h"
#include "train/checkpoint/checkpoint_save.h"
#include "train/fault_points.h"
#include "train/outer_step.h"
#include "train/snapshot/snapshot.h"
#include "train/update.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* This rank's part of the batch. */
typedef struct step_batch {
    const int32_t *tokens;
    int32_t *placeholder;  /* owned: placeholder tokens if there was no data */
    bool missing_anywhere; /* on any rank; known once losses are shared */
    nd_error error;        /* why this rank has no data; status ND_OK: it has */
} step_batch;

/* Measures this rank's time. */
typedef struct stopwatch {
    double started, waited; /* nd_fault_seconds and comm->wait_seconds at the last lap */
    nd_rank_times times;
} stopwatch;

/* The gradients of one worker's step. */
typedef struct worker_gradients {
    double norm;
    int64_t nonfinite; /* the first such parameter; -1: none */
} worker_gradients;

/* Sums of one micro-batch, known to every rank. */
typedef struct leaf_loss {
    double nll, total, kept; /* kept < 0: there was no data */
} leaf_loss;

/* The report that ranks exchange at the end of a step. */
typedef struct step_report {
    uint64_t bytes_sent;
    double comm_busy_ms;
    nd_rank_times times;
    int32_t stop_requested;
    int16_t save_ready, snapshot_ready;
} step_report;
_Static_assert(sizeof(step_report) == ND_STEP_REPORT_BYTES, "the plan counts it");

static void start_lap(stopwatch *watch, nd_run *run)
{
    nd_rounds_count_traffic(run);
    watch->started = nd_fault_seconds(run->comm);
    watch->waited = run->comm->wait_seconds;
}

/* Adds the time since the last lap, with or without waits for other ranks, to a phase. */
static void end_lap(stopwatch *watch, nd_run *run, nd_phase phase, bool with_waits)
{
    nd_rounds_count_traffic(run);
    const double waits = with_waits ? 0.0 : run->comm->wait_seconds - watch->waited;
    watch->times.ms[phase] += (float)(1e3 * (nd_fault_seconds(run->comm) - watch->started - waits));
    start_lap(watch, run);
}

/* A rank without data uses placeholder tokens until losses are shared; then all ranks know, before
 * any update. */
static nd_status next_batch(nd_run *run, step_batch *batch, stopwatch *watch)
{
    const nd_model_config *c = &run->model->config;
    double wait_ms;
    const nd_status status = nd_loader_next(run->data.loader, &batch->tokens, &wait_ms);
    watch->times.ms[ND_PHASE_DATA] = (float)wait_ms;
    start_lap(watch, run);
    if (status == ND_OK)
        return ND_OK;
    batch->error = *nd_error_get();
    batch->placeholder =
        calloc((size_t)(run->local_micro_batches * c->micro_batch * (c->seq_length + 1)),
               sizeof *batch->placeholder);
    batch->tokens = batch->placeholder;
    return batch->placeholder ? ND_OK : status;
}

/* Adds the losses of all micro-batches in order and finds the first non-finite one. */
static void add_losses(const nd_run *run, const leaf_loss *all, nd_step_result *result)
{
    const double tokens =
        (double)(run->config.training.batch_size * run->config.training.seq_length);
    double nll = 0.0, total = 0.0, kept = 0.0;
    for (int64_t j = 0; j < run->micro_batches; j++) {
        nll += all[j].nll;
        total += all[j].total;
        kept += all[j].kept;
        if (result->judgement.verdict == ND_VERDICT_GOOD && !isfinite(nll + total))
            result->judgement = (nd_judgement){.verdict = ND_VERDICT_LOSS, .culprit = j};
    }
    result->loss = nll / tokens;
    result->total_loss = total / tokens;
    result->kept_fraction = kept / tokens;
}

/* Shares the losses of all micro-batches and adds them to `result`. */
static nd_status share_losses(nd_run *run, const nd_loss *losses, step_batch *batch,
                              nd_step_result *result)
{
    const int64_t count = run->local_micro_batches, micro = run->model->config.micro_batch;
    ND_AUTOFREE leaf_loss *all = malloc((size_t)(run->micro_batches + count) * sizeof *all);
    ND_FAIL_IF(!all, ND_ENOMEM, "no memory for %lld losses", (long long)run->micro_batches);
    leaf_loss *mine = all + run->micro_batches;
    for (int64_t i = 0; i < count; i++) {
        const nd_loss *l = &losses[i];
        const int64_t sample = run->position.next_sample + (count * run->comm->rank + i) * micro;
        const double nll = nd_fault_value("loss", sample, micro, l->nll, 100.0 * (double)l->tokens);
        mine[i] = (leaf_loss){nll, l->total, batch->placeholder ? -1.0 : (double)l->kept};
    }
    nd_comm_set_phase(run->comm, run->position.step + 1, "losses");
    nd_fault_point(run->comm, "losses");
    ND_TRY(run->comm->ops.allgather(run->comm, all, mine, (size_t)count * sizeof *all));
    add_losses(run, all, result);
    for (int64_t i = 0; i < run->micro_batches; i++)
        batch->missing_anywhere |= all[i].kept < 0.0;
    return ND_OK;
}

static void judge_losses(const nd_run *run, const step_batch *batch, nd_step_result *result)
{
    const double limit = run->config.training.loss_spike_zscore;
    nd_judgement *j = &result->judgement;
    if (batch->missing_anywhere)
        j->verdict = ND_VERDICT_LOSS; /* prevents any update */
    if (j->verdict != ND_VERDICT_GOOD || limit == 0.0)
        return;
    j->score = nd_health_score(&run->health, result->loss);
    if (j->score > limit)
        j->verdict = ND_VERDICT_SPIKE;
}

static void judge_gradients(int64_t nonfinite, nd_step_result *result)
{
    if (nonfinite >= 0)
        result->judgement = (nd_judgement){.verdict = ND_VERDICT_GRADIENT, .culprit = nonfinite};
}

static const char *name_samples(int64_t first, int64_t count, char *text, size_t size)
{
    if (count == 1)
        snprintf(text, size, "sample %lld", (long long)first);
    else
        snprintf(text, size, "samples %lld to %lld", (long long)first,
                 (long long)(first + count - 1));
    return text;
}

/* Why a step was skipped, and the samples of its batch. */
static void describe_skip(const nd_run *run, nd_step_result *result)
{
    const nd_judgement *h = &result->judgement;
    const int64_t micro = run->model->config.micro_batch;
    const int64_t first = run->position.next_sample;
    char why[192] = "", samples[64];
    if (h->verdict == ND_VERDICT_LOSS)
        snprintf(why, sizeof why, "the loss of %s on rank %d is not finite",
                 name_samples(first + h->culprit * micro, micro, samples, sizeof samples),
                 (int)(h->culprit / run->local_micro_batches));
    else if (h->verdict == ND_VERDICT_SPIKE)
        snprintf(why, sizeof why,
                 "the loss %.4f lies %.1f standard deviations above those of the last %lld steps",
                 result->loss, h->score, (long long)run->health.recent_count);
    else
        snprintf(why, sizeof why, "the gradient of %s is not finite",
                 run->model->params.list[h->culprit].name);
    snprintf(result->skipped_because, sizeof result->skipped_because, "step %lld: %s; batch of %s",
             (long long)run->position.step + 1, why,
             name_samples(first, run->config.training.batch_size, samples, sizeof samples));
}

static nd_status share_report(nd_run *run, const step_report *mine, nd_step_result *result)
{
    const size_t ranks = (size_t)run->comm->size;
    ND_AUTOFREE step_report *all = malloc(ranks * (sizeof *all + sizeof(double)));
    ND_FAIL_IF(!all, ND_ENOMEM, "no memory for the reports of %d ranks", run->comm->size);
    ND_TRY(run->comm->ops.allgather(run->comm, all, mine, sizeof *mine));
    result->comm_bytes = 0;
    result->stop_requested = false;
    result->save_ready = result->snapshot_ready = true;
    result->comm_busy_ms = 0.0;
    for (int r = 0; r < run->comm->size; r++) {
        result->comm_bytes += all[r].bytes_sent;
        result->stop_requested |= all[r].stop_requested != 0;
        result->save_ready &= all[r].save_ready != 0;
        result->snapshot_ready &= all[r].snapshot_ready != 0;
        result->comm_busy_ms = fmax(result->comm_busy_ms, all[r].comm_busy_ms);
    }
    result->times =
        nd_times_summarize(&all->times, sizeof *all, run->comm->size, (double *)(all + ranks));
    nd_slow_ranks_add(run->timing.slow, &all->times, sizeof *all, run->comm->size, &result->times);
    result->data_wait_ms = result->times.phases[ND_PHASE_DATA].max;
    result->comm_wait_ms = result->times.phases[ND_PHASE_WAIT].max;
    return ND_OK;
}

static bool good(const nd_step_result *result)
{
    return result->judgement.verdict == ND_VERDICT_GOOD;
}

static void prepare_model(nd_run *run, int64_t skipped)
{
    const nd_config *c = &run->config;
    const int64_t step = run->position.step;
    float offset_weights[ND_OFFSETS_MAX];
    nd_mtp_weights(c, step, offset_weights);
    nd_model_set_offset_weights(run->model, offset_weights);
    nd_model_set_filtering(run->model, nd_config_filters(c, step));
    nd_gradient_reducer_begin_step(run->reducer, step, skipped, run->position.next_sample);
    nd_comm_set_phase(run->comm, step + 1, "backward");
}

static float clipping_factor(const nd_run *run, double norm)
{
    const double clip = run->config.training.grad_clip;
    return clip > 0.0 && norm > clip ? (float)(clip / norm) : 1.0f;
}

/* Runs the passes of this rank's workers, each on its block of the rank's micro-batches. */
static nd_status run_passes(nd_run *run, const int32_t *tokens, nd_loss *losses)
{
    const nd_model_config *c = &run->model->config;
    for (int i = 0; i < nd_run_workers(run); i++) {
        nd_run *w = nd_run_worker(run, i);
        const int64_t first = i * w->local_micro_batches;
        ND_TRY(nd_passes_run(w, tokens + first * c->micro_batch * (c->seq_length + 1),
                             losses + first));
    }
    return nd_rounds_finish_inside(run);
}

/* The gradients of the first worker with a non-finite one, else the root mean square of the
 * workers' norms: the same on every rank. */
static nd_status share_gradients(nd_run *run, const worker_gradients *mine, double *norm,
                                 int64_t *nonfinite)
{
    const int carried = nd_run_workers(run);
    *norm = mine->norm;
    *nonfinite = mine->nonfinite;
    if (!run->rounds)
        return ND_OK;
    ND_AUTOFREE worker_gradients *all = malloc((size_t)(carried * run->comm->size) * sizeof *all);
    ND_FAIL_IF(!all, ND_ENOMEM, "no memory for the norms of %lld workers",
               (long long)run->rounds->workers);
    ND_TRY(run->comm->ops.allgather(run->comm, all, mine, (size_t)carried * sizeof *all));
    double squares = 0.0;
    *nonfinite = -1;
    for (int64_t k = 0; k < run->rounds->workers; k++) {
        const worker_gradients *of = &all[nd_rounds_place(run, k)];
        squares += of->norm * of->norm;
        *nonfinite = *nonfinite < 0 ? of->nonfinite : *nonfinite;
    }
    *norm = sqrt(squares / (double)run->rounds->workers);
    return ND_OK;
}

/* Sums the gradients of each worker; if any is not finite, none is used. */
static nd_status reduce(nd_run *run, worker_gradients *gradients, nd_step_result *result)
{
    int64_t nonfinite;
    for (int i = 0; i < nd_run_workers(run); i++) {
        nd_run *w = nd_run_worker(run, i);
        ND_TRY(nd_gradient_reducer_reduce(w->reducer, 0, nd_mtp_trained_params(w->model),
                                          &gradients[i].nonfinite));
        gradients[i].norm = nd_gradient_reducer_norm(w->reducer);
    }
    ND_TRY(share_gradients(run, gradients, &result->grad_norm, &nonfinite));
    judge_gradients(nonfinite, result);
    return ND_OK;
}

static nd_status update(nd_run *run, const worker_gradients *gradients)
{
    for (int i = 0; i < nd_run_workers(run); i++) {
        nd_run *w = nd_run_worker(run, i);
        ND_TRY(nd_update_run(w, 0, nd_mtp_trained_params(w->model),
                             clipping_factor(w, gradients[i].norm)));
    }
    return nd_rounds_finish_inside(run);
}

/* What layers have sent after updates during the backward pass is of no use either. */
static nd_status discard(nd_run *run)
{
    for (int i = 0; i < nd_run_workers(run); i++) {
        nd_run *w = nd_run_worker(run, i);
        ND_TRY(nd_gradient_reducer_discard(w->reducer));
        ND_TRY(w->comm->ops.finish(w->comm));
        nd_weight_gather_discard(&w->gather);
    }
    return ND_OK;
}

/* Not the weights of workers, which an outer step may replace. */
static bool sends_weights_ahead(const nd_run *run)
{
    return nd_comm_overlaps(run->comm) && !run->rounds &&
           nd_step_sends_weights_ahead(nd_gradient_reducer_immediate(run->reducer),
                                       1e-3 * run->timing.update_ms, run->comm->size);
}

/* From the batch to updated masters or a verdict against an update. With immediate updates losses
 * are judged before the backward pass. `losses` [local_micro_batches] is scratch. */
static nd_status compute_and_update(nd_run *run, step_batch *batch, nd_loss *losses,
                                    stopwatch *watch, nd_step_result *result)
{
    nd_gradient_reducer *reducer = nd_run_worker(run, 0)->reducer;
    const bool immediate = nd_gradient_reducer_immediate(reducer);
    worker_gradients gradients[nd_run_workers(run)];
    int64_t nonfinite = -1;
    nd_split_pass pass;
    ND_TRY(immediate ? nd_passes_forward(run, batch->tokens, &pass, losses)
                     : run_passes(run, batch->tokens, losses));
    end_lap(watch, run, ND_PHASE_FORWARD_BACKWARD, false);
    ND_TRY(share_losses(run, losses, batch, result));
    judge_losses(run, batch, result);
    start_lap(watch, run);
    if (good(result) && immediate) {
        ND_TRY(nd_update_during_backward(run, &pass, &nonfinite, &result->partly_updated));
        judge_gradients(nonfinite, result);
        result->grad_norm = nd_gradient_reducer_norm(reducer);
        end_lap(watch, run, ND_PHASE_FORWARD_BACKWARD, false);
    } else if (good(result)) {
        ND_TRY(reduce(run, gradients, result));
        end_lap(watch, run, ND_PHASE_REDUCTION, true);
    }
    if (!good(result)) {
        result->grad_norm = (double)NAN;
        return discard(run);
    }
    if (!immediate)
        ND_TRY(update(run, gradients));
    end_lap(watch, run, ND_PHASE_UPDATE, false);
    return ND_OK;
}

/* If a rank had no data, every rank returns its error. */
static nd_status check_batch(nd_run *run, const step_batch *batch)
{
    if (!batch->missing_anywhere)
        return ND_OK;
    nd_error_set(&batch->error);
    return nd_comm_agree(run->comm, batch->error.status);
}

/* A round ends after a fixed number of steps, even if its last one was skipped. */
static nd_status publish_or_skip(nd_run *run, nd_step_result *result)
{
    result->skipped = !good(result);
    result->round_ended = nd_rounds_end_with_next(run);
    if (result->skipped)
        describe_skip(run, result);
    nd_comm_set_phase(run->comm, run->position.step + 1, "weights");
    if (result->round_ended)
        return nd_outer_step(run);
    if (result->skipped)
        return ND_OK;
    nd_fault_point(run->comm, "weights");
    for (int i = 0; i < nd_run_workers(run); i++)
        ND_TRY(nd_run_publish_weights(nd_run_worker(run, i), false));
    return ND_OK;
}

static nd_status run_step(nd_run *run, bool stop_requested, step_batch *batch, nd_loss *losses,
                          nd_step_result *result)
{
    const double start = nd_seconds();
    stopwatch watch = {.started = start};
    nd_rounds_count_traffic(run); /* of what came before, initial weights for example */
    const uint64_t bytes_before = run->comm->bytes_sent;
    const double wait_before = run->comm->wait_seconds, busy_before = run->comm->busy_seconds;
    nd_rounds_set_position(run);
    for (int i = 0; i < nd_run_workers(run); i++)
        prepare_model(nd_run_worker(run, i), run->health.skipped);
    nd_comm_set_phase(run->comm, run->position.step + 1, "backward");
    run->gather.ahead = sends_weights_ahead(run);
    ND_TRY(next_batch(run, batch, &watch));
    nd_fault_point(run->comm, "backward");
    ND_TRY(compute_and_update(run, batch, losses, &watch, result));
    ND_TRY(check_batch(run, batch));
    result->lr = nd_optimizer_learning_rate(nd_run_worker(run, 0)->optimizer, run->position.step);
    start_lap(&watch, run);
    ND_TRY(publish_or_skip(run, result));
    end_lap(&watch, run, ND_PHASE_GATHER, true);
    nd_health_end_step(&run->health, good(result), result->loss);
    nd_position_advance(&run->position, &run->config);

    watch.times.ms[ND_PHASE_WAIT] = (float)((run->comm->wait_seconds - wait_before) * 1e3);
    const step_report report = {.bytes_sent = run->comm->bytes_sent - bytes_before,
                                .times = watch.times,
                                .comm_busy_ms = (run->comm->busy_seconds - busy_before) * 1e3,
                                .stop_requested = stop_requested,
                                .save_ready = nd_save_ready(run),
                                .snapshot_ready = nd_snapshot_ready(run)};
    nd_comm_set_phase(run->comm, run->position.step, "report");
    nd_fault_point(run->comm, "report");
    ND_TRY(share_report(run, &report, result));
    run->timing.update_ms = result->times.phases[ND_PHASE_UPDATE].max;
    result->step_ms = 1e3 * (nd_seconds() - start);
    return ND_OK;
}

nd_status nd_step_run(nd_run *run, bool stop_requested, nd_step_result *result)
{
    step_batch batch = {.error = {.status = ND_OK}};
    *result = (nd_step_result){0};
    ND_AUTOFREE nd_loss *losses = malloc((size_t)run->local_micro_batches * sizeof *losses);
    ND_FAIL_IF(!losses, ND_ENOMEM, "no memory for the losses of %lld micro-batches",
               (long long)run->local_micro_batches);
    const nd_status status = run_step(run, stop_requested, &batch, losses, result);
    free(batch.placeholder);
    return status;
}
