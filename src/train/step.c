#include "train/step.h"

#include "optim/mtp_schedule.h"
#include "train/gradient_path.h"

#include <math.h>
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
    double nll, total, kept;
} leaf_loss;

static nd_status compute_gradients(nd_run *run, const int32_t *tokens, leaf_loss *losses)
{
    nd_loss computed[run->local_micro_batches];
    ND_TRY(nd_gradient_path_run(run, tokens, computed));
    for (int64_t j = 0; j < run->local_micro_batches; j++)
        losses[j] = (leaf_loss){computed[j].nll, computed[j].total, (double)computed[j].kept};
    return ND_OK;
}

/* What ranks tell each other at the end of a step. */
typedef struct step_report {
    uint64_t bytes_sent;
    double data_wait_ms, comm_wait_ms;
    int stop_requested;
} step_report;

static nd_status share_losses(nd_run *run, const leaf_loss *mine, nd_step_result *result)
{
    leaf_loss *all = malloc((size_t)run->micro_batches * sizeof *all);
    if (!all)
        return ND_FAIL(ND_ENOMEM, "no memory for %lld losses", (long long)run->micro_batches);
    const nd_status status = run->comm->ops.allgather(
        run->comm, all, mine, (size_t)run->local_micro_batches * sizeof *all);
    double nll = 0.0, total = 0.0, kept = 0.0;
    for (int64_t j = 0; status == ND_OK && j < run->micro_batches; j++) {
        nll += all[j].nll;
        total += all[j].total;
        kept += all[j].kept;
    }
    free(all);
    const double tokens =
        (double)(run->config.training.batch_size * run->config.training.seq_length);
    result->loss = nll / tokens;
    result->total_loss = total / tokens;
    result->kept_fraction = kept / tokens;
    return status;
}

static nd_status share_report(nd_run *run, const step_report *mine, nd_step_result *result)
{
    step_report all[run->comm->size];
    ND_TRY(run->comm->ops.allgather(run->comm, all, mine, sizeof *mine));
    result->comm_bytes = 0;
    result->stop_requested = false;
    result->data_wait_ms = result->comm_wait_ms = 0.0;
    for (int r = 0; r < run->comm->size; r++) {
        result->comm_bytes += all[r].bytes_sent;
        result->stop_requested |= all[r].stop_requested != 0;
        result->data_wait_ms = fmax(result->data_wait_ms, all[r].data_wait_ms);
        result->comm_wait_ms = fmax(result->comm_wait_ms, all[r].comm_wait_ms);
    }
    return ND_OK;
}

nd_status nd_step_run(nd_run *run, bool stop_requested, nd_step_result *result)
{
    const double start = now_ms();
    const uint64_t bytes_before = run->comm->bytes_sent;
    const double wait_before = run->comm->wait_seconds;
    const int32_t *tokens = NULL;
    leaf_loss losses[run->local_micro_batches];
    step_report report = {.stop_requested = stop_requested};

    float offset_weights[ND_OFFSETS_MAX];
    nd_mtp_weights(&run->config, run->step, offset_weights);
    nd_model_set_offset_weights(run->model, offset_weights);
    nd_comm_set_phase(run->comm, run->step + 1, "backward"); /* when layers are updated in it */
    ND_TRY(nd_loader_next(run->loader, &tokens, &report.data_wait_ms));
    ND_TRY(compute_gradients(run, tokens, losses));
    nd_comm_set_phase(run->comm, run->step + 1, "losses");
    ND_TRY(share_losses(run, losses, result));
    ND_TRY(nd_gradient_path_finish(run, &result->grad_norm));
    result->lr = nd_optimizer_learning_rate(run->optimizer, run->step);
    nd_comm_set_phase(run->comm, run->step + 1, "weights");
    ND_TRY(nd_run_publish_weights(run));

    run->step++;
    run->next_sample += run->config.training.batch_size;
    run->tokens += run->config.training.batch_size * run->config.training.seq_length;
    report.bytes_sent = run->comm->bytes_sent - bytes_before;
    report.comm_wait_ms = (run->comm->wait_seconds - wait_before) * 1e3;
    nd_comm_set_phase(run->comm, run->step, "report");
    ND_TRY(share_report(run, &report, result));
    result->step_ms = now_ms() - start;
    return ND_OK;
}
