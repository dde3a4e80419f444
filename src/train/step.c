#include "train/step.h"

#include "optim/mtp_schedule.h"
#include "train/checkpoint/checkpoint_save.h"
#include "train/error_feedback.h"
#include "train/fault_points.h"
#include "train/gradient_reducer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* Sums of one micro-batch, as every rank gets to know them. */
typedef struct leaf_loss {
    double nll, total, kept; /* kept < 0: there was no data */
} leaf_loss;

/* What ranks tell each other at the end of a step. */
typedef struct step_report {
    uint64_t bytes_sent;
    double data_wait_ms, comm_wait_ms, comm_busy_ms;
    int stop_requested, save_ready;
} step_report;
_Static_assert(sizeof(step_report) == ND_STEP_REPORT_BYTES, "the plan counts it");

/* What the judgement of a step's losses needs. */
typedef struct judgement {
    nd_run *run;
    const nd_loss *computed; /* [local_micro_batches] */
    bool no_data;            /* on this rank, and on any of them */
    bool no_data_anywhere;
    nd_step_result *result;
} judgement;

/* Adds the losses of all micro-batches in their order and finds the first that is not finite. */
static void add_losses(nd_run *run, const leaf_loss *all, nd_step_result *result)
{
    const double tokens =
        (double)(run->config.training.batch_size * run->config.training.seq_length);
    double nll = 0.0, total = 0.0, kept = 0.0;
    for (int64_t j = 0; j < run->micro_batches; j++) {
        nll += all[j].nll;
        total += all[j].total;
        kept += all[j].kept;
        if (run->health.verdict == ND_VERDICT_GOOD && !isfinite(nll + total)) {
            run->health.verdict = ND_VERDICT_LOSS;
            run->health.culprit = j;
        }
    }
    result->loss = nll / tokens;
    result->total_loss = total / tokens;
    result->kept_fraction = kept / tokens;
}

static nd_status judge_losses(void *context)
{
    judgement *j = context;
    nd_run *run = j->run;
    const int64_t count = run->local_micro_batches, micro = run->model->config.micro_batch;
    const double limit = run->config.training.loss_spike_zscore;
    leaf_loss *all = malloc((size_t)(run->micro_batches + count) * sizeof *all);
    if (!all)
        return ND_FAIL(ND_ENOMEM, "no memory for %lld losses", (long long)run->micro_batches);
    leaf_loss *mine = all + run->micro_batches;
    for (int64_t i = 0; i < count; i++) {
        const nd_loss *l = &j->computed[i];
        const int64_t sample = run->next_sample + (count * run->comm->rank + i) * micro;
        const double nll = nd_fault_value("loss", sample, micro, l->nll, 100.0 * (double)l->tokens);
        mine[i] = (leaf_loss){nll, l->total, j->no_data ? -1.0 : (double)l->kept};
    }
    nd_comm_set_phase(run->comm, run->step + 1, "losses");
    nd_fault_point(run->comm, "losses");
    const nd_status status =
        run->comm->ops.allgather(run->comm, all, mine, (size_t)count * sizeof *all);
    if (status == ND_OK)
        add_losses(run, all, j->result);
    for (int64_t i = 0; status == ND_OK && i < run->micro_batches; i++)
        j->no_data_anywhere |= all[i].kept < 0.0;
    free(all);
    ND_TRY(status);
    if (j->no_data_anywhere)
        run->health.verdict = ND_VERDICT_LOSS; /* so that nothing is updated */
    if (run->health.verdict != ND_VERDICT_GOOD || limit == 0.0)
        return ND_OK;
    run->health.score = nd_health_score(&run->health, j->result->loss);
    if (run->health.score > limit)
        run->health.verdict = ND_VERDICT_SPIKE;
    return ND_OK;
}

/* Why a step was skipped, and the samples of its batch. */
static void describe_skip(const nd_run *run, nd_step_result *result)
{
    const nd_health *h = &run->health;
    const int64_t micro = run->model->config.micro_batch;
    const int64_t first = run->next_sample;
    char why[192] = "";
    if (h->verdict == ND_VERDICT_LOSS)
        snprintf(why, sizeof why, "the loss of samples %lld to %lld on rank %d is not finite",
                 (long long)(first + h->culprit * micro),
                 (long long)(first + (h->culprit + 1) * micro - 1),
                 (int)(h->culprit / run->local_micro_batches));
    else if (h->verdict == ND_VERDICT_SPIKE)
        snprintf(why, sizeof why,
                 "the loss %.4f lies %.1f standard deviations above those of the last %lld steps",
                 result->loss, h->score, (long long)h->recent_count);
    else
        snprintf(why, sizeof why, "the gradient of %s is not finite",
                 run->model->params.list[h->culprit].name);
    snprintf(result->skipped_because, sizeof result->skipped_because,
             "step %lld: %s; batch of samples %lld to %lld", (long long)run->step + 1, why,
             (long long)first, (long long)(first + run->config.training.batch_size - 1));
}

static nd_status share_report(nd_run *run, const step_report *mine, nd_step_result *result)
{
    step_report *all = malloc((size_t)run->comm->size * sizeof *all);
    if (!all)
        return ND_FAIL(ND_ENOMEM, "no memory for the reports of %d ranks", run->comm->size);
    const nd_status status = run->comm->ops.allgather(run->comm, all, mine, sizeof *mine);
    if (status != ND_OK) {
        free(all);
        return status;
    }
    result->comm_bytes = 0;
    result->stop_requested = false;
    result->save_ready = true;
    result->data_wait_ms = result->comm_wait_ms = result->comm_busy_ms = 0.0;
    for (int r = 0; r < run->comm->size; r++) {
        result->comm_bytes += all[r].bytes_sent;
        result->stop_requested |= all[r].stop_requested != 0;
        result->save_ready &= all[r].save_ready != 0;
        result->data_wait_ms = fmax(result->data_wait_ms, all[r].data_wait_ms);
        result->comm_wait_ms = fmax(result->comm_wait_ms, all[r].comm_wait_ms);
        result->comm_busy_ms = fmax(result->comm_busy_ms, all[r].comm_busy_ms);
    }
    free(all);
    return ND_OK;
}

static bool filters_tokens(const nd_run *run)
{
    const nd_config *c = &run->config;
    return (double)run->step < c->training.collider_until * (double)c->training.total_steps;
}

/* A rank without data takes part with tokens of no meaning until losses are shared: then all ranks know, and
 * none has updated anything. `scratch` is freed by the caller. */
static nd_status next_batch(nd_run *run, judgement *judged, const int32_t **tokens, double *wait_ms,
                            int32_t **scratch)
{
    const nd_model_config *c = &run->model->config;
    const nd_status status = nd_loader_next(run->loader, tokens, wait_ms);
    if (status == ND_OK)
        return ND_OK;
    judged->no_data = true;
    *scratch = calloc((size_t)(run->local_micro_batches * c->micro_batch * (c->seq_length + 1)),
                      sizeof **scratch);
    *tokens = *scratch;
    return *scratch ? ND_OK : status;
}

static nd_status compute(nd_run *run, judgement *judged, nd_loss *losses, double *wait_ms)
{
    const int32_t *tokens = NULL;
    int32_t *scratch = NULL;
    nd_status status = next_batch(run, judged, &tokens, wait_ms, &scratch);
    const nd_error error = *nd_error_get();
    if (status == ND_OK) {
        nd_health_begin_step(&run->health);
        nd_fault_point(run->comm, "backward");
        status =
            nd_gradient_reducer_run(run, tokens, losses, (nd_losses_known){judge_losses, judged});
    }
    if (status == ND_OK)
        status = nd_gradient_reducer_finish(run, &judged->result->grad_norm);
    free(scratch);
    if (status != ND_OK || !judged->no_data_anywhere)
        return status;
    nd_error_set(&error);
    return nd_run_agree(run->comm, judged->no_data ? error.status : ND_OK);
}

/* `losses` [local_micro_batches] is memory to work in: too much for the stack. */
static nd_status run_step(nd_run *run, bool stop_requested, nd_loss *losses, nd_step_result *result)
{
    const double start = now_ms();
    const uint64_t bytes_before = run->comm->bytes_sent;
    const double wait_before = run->comm->wait_seconds, busy_before = run->comm->busy_seconds;
    judgement judged = {.run = run, .computed = losses, .result = result};
    step_report report = {.stop_requested = stop_requested};

    float offset_weights[ND_OFFSETS_MAX];
    nd_mtp_weights(&run->config, run->step, offset_weights);
    nd_model_set_offset_weights(run->model, offset_weights);
    nd_model_set_filtering(run->model, filters_tokens(run));
    nd_comm_set_phase(run->comm, run->step + 1, "backward"); /* when layers are updated in it */
    ND_TRY(compute(run, &judged, losses, &report.data_wait_ms));
    result->lr = nd_optimizer_learning_rate(run->optimizer, run->step);
    result->skipped = run->health.verdict != ND_VERDICT_GOOD;
    if (result->skipped) {
        describe_skip(run, result);
        ND_TRY(nd_error_feedback_drop_all(run));
    } else {
        nd_comm_set_phase(run->comm, run->step + 1, "weights");
        nd_fault_point(run->comm, "weights");
        ND_TRY(nd_run_publish_weights(run, false));
    }
    nd_health_end_step(&run->health, result->loss);

    run->step++;
    run->next_sample += run->config.training.batch_size;
    run->tokens += run->config.training.batch_size * run->config.training.seq_length;
    report.bytes_sent = run->comm->bytes_sent - bytes_before;
    report.comm_wait_ms = (run->comm->wait_seconds - wait_before) * 1e3;
    report.comm_busy_ms = (run->comm->busy_seconds - busy_before) * 1e3;
    report.save_ready = nd_save_ready(run);
    nd_comm_set_phase(run->comm, run->step, "report");
    nd_fault_point(run->comm, "report");
    ND_TRY(share_report(run, &report, result));
    result->step_ms = now_ms() - start;
    return ND_OK;
}

nd_status nd_step_run(nd_run *run, bool stop_requested, nd_step_result *result)
{
    nd_loss *losses = malloc((size_t)run->local_micro_batches * sizeof *losses);
    if (!losses)
        return ND_FAIL(ND_ENOMEM, "no memory for the losses of %lld micro-batches",
                       (long long)run->local_micro_batches);
    const nd_status status = run_step(run, stop_requested, losses, result);
    free(losses);
    return status;
}
