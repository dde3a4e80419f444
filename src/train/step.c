#include "train/step.h"

#include "core/sum_tree.h"
#include "optim/mtp_schedule.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* A micro-batch's gradient goes to the slot on top of the stack; the blocks it completes are merged,
 * parameter by parameter as the backward pass finishes them. */
typedef struct leaf {
    nd_run *run;
    int slot;
    int merges;
} leaf;

static nd_status merge_blocks(void *context, int64_t first, int64_t count)
{
    const leaf *l = context;
    nd_backend *b = l->run->backend;
    for (int upper = l->slot; upper > l->slot - l->merges; upper--)
        for (int64_t i = first; i < first + count; i++)
            ND_TRY(b->ops.axpby(b, l->run->gradients[upper - 1][i], 1.0f,
                                nd_read(l->run->gradients[upper][i]), 1.0f));
    return ND_OK;
}

/* Sums of one micro-batch, as every rank gets to know them. */
typedef struct leaf_loss {
    double nll, total;
} leaf_loss;

static nd_status compute_gradients(nd_run *run, const int32_t *tokens, leaf_loss *losses)
{
    const nd_model_config *c = &run->model->config;
    const bool tree = run->config.dist.deterministic == ND_DETERMINISTIC_WORLD;
    const int64_t stride = c->micro_batch * (c->seq_length + 1);
    const double batch_tokens = (double)(run->config.training.batch_size * c->seq_length);
    const int64_t first = run->local_micro_batches * run->comm->rank;
    int depth = 0;
    for (int64_t j = 0; j < run->local_micro_batches; j++) {
        leaf at = {run, depth, tree ? nd_sum_tree_merges(first, first + j) : 0};
        const nd_gradients_ready ready = {tree ? merge_blocks : NULL, &at};
        const bool accumulate = !tree && j > 0;
        const nd_model_gradients into = {run->gradients[at.slot], accumulate, accumulate};
        nd_loss loss;
        ND_TRY(nd_model_train(run->model, tokens + j * stride, (float)(1.0 / batch_tokens), into,
                              ready, &loss));
        losses[j] = (leaf_loss){loss.nll, loss.total};
        if (tree)
            depth += 1 - at.merges;
    }
    return ND_OK;
}

/* Sums every parameter's slots to its owner; `sums` [params.count] receives the owned ones. */
static nd_status reduce_gradients(nd_run *run, nd_view *sums)
{
    const int64_t count = run->model->params.count;
    const bool tree = run->config.dist.deterministic == ND_DETERMINISTIC_WORLD;
    const nd_comm_split split = {tree ? run->micro_batches : run->comm->size};
    nd_comm_piece *pieces = malloc((size_t)count * sizeof *pieces);
    float **slots = malloc((size_t)(count * run->gradient_slots) * sizeof *slots);
    nd_status status = ND_OK;
    if (!pieces || !slots) {
        status = ND_FAIL(ND_ENOMEM, "no memory for the table of %lld pieces", (long long)count);
        goto done;
    }
    for (int64_t i = 0; i < count; i++) {
        float **own = slots + i * run->gradient_slots;
        for (int slot = 0; slot < run->gradient_slots; slot++)
            own[slot] = run->gradients[slot][i].data;
        pieces[i] = (nd_comm_piece){.slots = own,
                                    .count = nd_view_count(nd_read(run->gradients[0][i])),
                                    .owner = run->own.owner[i]};
    }
    ND_TRY_GOTO(run->comm->ops.reduce_to_owners(run->comm, split, pieces, count), done);
    for (int64_t i = 0; i < count; i++) {
        sums[i] = run->gradients[0][i];
        sums[i].data = pieces[i].result;
    }
done:
    free(pieces);
    free(slots);
    return status;
}

/* sqrt of the sum over parameters, each summed in double by its owner, in the order of parameters. */
static nd_status global_norm(nd_run *run, const nd_view *gradients, double *norm)
{
    nd_backend *b = run->backend;
    const int64_t count = run->model->params.count;
    const int ranks = run->comm->size;
    nd_status status = ND_OK;
    double *mine = calloc((size_t)count * (size_t)(ranks + 1), sizeof *mine);
    if (!mine)
        return ND_FAIL(ND_ENOMEM, "no memory for the table of norms");
    double *all = mine + count;
    for (int64_t i = 0; i < count; i++)
        if (run->own.owner[i] == run->comm->rank) {
            ND_TRY_GOTO(b->ops.sum_squares(b, run->scalar, nd_read(gradients[i])), done);
            ND_TRY_GOTO(b->ops.download(b, &mine[i], run->scalar.data, sizeof *mine), done);
        }
    ND_TRY_GOTO(run->comm->ops.allgather(run->comm, all, mine, (size_t)count * sizeof *mine), done);
    double squares = 0.0;
    for (int64_t i = 0; i < count; i++) {
        const double value = all[run->own.owner[i] * count + i];
        if (!isfinite(value)) {
            status = ND_FAIL(ND_ENUMERIC,
                             "step %lld: the gradient of %s is not finite; nothing was "
                             "updated; a lower learning_rate (0.01) or a longer "
                             "warm-up usually helps",
                             (long long)run->step + 1, run->model->params.list[i].name);
            goto done;
        }
        squares += value;
    }
    *norm = sqrt(squares);
done:
    free(mine);
    return status;
}

static nd_status update_masters(nd_run *run, const nd_view *gradients, double norm)
{
    const double clip = run->config.training.grad_clip;
    const float scale = clip > 0.0 && norm > clip ? (float)(clip / norm) : 1.0f;
    for (int64_t i = 0; i < run->model->params.count; i++)
        if (run->masters[i].data)
            ND_TRY(nd_optimizer_update(run->optimizer, i, run->masters[i], nd_read(gradients[i]),
                                       scale, run->step));
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
    double nll = 0.0, total = 0.0;
    for (int64_t j = 0; status == ND_OK && j < run->micro_batches; j++) {
        nll += all[j].nll;
        total += all[j].total;
    }
    free(all);
    const double tokens =
        (double)(run->config.training.batch_size * run->config.training.seq_length);
    result->loss = nll / tokens;
    result->total_loss = total / tokens;
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
    ND_TRY(nd_loader_next(run->loader, &tokens, &report.data_wait_ms));
    ND_TRY(compute_gradients(run, tokens, losses));
    ND_TRY(share_losses(run, losses, result));
    ND_TRY(reduce_gradients(run, run->sums));
    ND_TRY(global_norm(run, run->sums, &result->grad_norm));
    result->lr = nd_optimizer_learning_rate(run->optimizer, run->step);
    ND_TRY(update_masters(run, run->sums, result->grad_norm));
    ND_TRY(nd_run_publish_weights(run));

    run->step++;
    run->next_sample += run->config.training.batch_size;
    run->tokens += run->config.training.batch_size * run->config.training.seq_length;
    report.bytes_sent = run->comm->bytes_sent - bytes_before;
    report.comm_wait_ms = (run->comm->wait_seconds - wait_before) * 1e3;
    ND_TRY(share_report(run, &report, result));
    result->step_ms = now_ms() - start;
    return ND_OK;
}
