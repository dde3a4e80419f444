#include "train/rounds.h"

int nd_run_workers(const nd_run *run)
{
    return run->rounds ? run->rounds->carried : 1;
}

nd_run *nd_run_worker(nd_run *run, int i)
{
    return run->rounds ? &run->rounds->worker[i] : run;
}

nd_status nd_run_publish_projectors(nd_run *run)
{
    for (int k = 0; k < nd_run_workers(run); k++) {
        nd_run *w = nd_run_worker(run, k);
        for (int64_t i = 0; i < w->model->params.count; i++)
            if (nd_projectors_shape(nd_optimizer_projectors(w->optimizer), i))
                ND_TRY(nd_run_send_projector(w, i));
        ND_TRY(w->comm->ops.finish(w->comm));
    }
    return ND_OK;
}

nd_status nd_run_reset_error_feedback(nd_run *run)
{
    for (int k = 0; k < nd_run_workers(run); k++) {
        nd_run *w = nd_run_worker(run, k);
        ND_TRY(nd_gradient_reducer_reset_all_feedback(w->reducer));
        if (w->gather.embedding != ND_EMBEDDING_SYNC_FULL)
            ND_TRY(nd_run_publish_weights(w, true));
    }
    return ND_OK;
}

int nd_rounds_place(const nd_run *run, int64_t k)
{
    const int64_t ranks = run->comm->size, workers = run->rounds->workers;
    return (int)(ranks >= workers ? k * (ranks / workers) : k);
}

int nd_rounds_rank(const nd_run *run, int64_t k, int64_t index)
{
    const nd_rounds *r = run->rounds;
    return run->comm->size < r->workers ? (int)(k / r->carried)
                                        : (int)k * r->inside->size + r->worker[0].own.owner[index];
}

bool nd_rounds_end_with_next(const nd_run *run)
{
    const int64_t after = run->position.step + 1;
    return run->rounds &&
           (after % run->config.dist.sync_every == 0 || after >= nd_run_last_step(run));
}

void nd_rounds_set_position(nd_run *run)
{
    const nd_rounds *r = run->rounds;
    for (int i = 0; r && i < r->carried; i++) {
        nd_run *w = &r->worker[i];
        w->position = run->position;
        w->position.next_sample += (r->first + i) * w->config.training.batch_size;
    }
}

nd_status nd_rounds_finish_inside(const nd_run *run)
{
    return run->rounds ? run->rounds->inside->ops.finish(run->rounds->inside) : ND_OK;
}

static void move_traffic(nd_comm *to, nd_comm *from)
{
    if (to == from)
        return;
    to->bytes_sent += from->bytes_sent;
    to->wait_seconds += from->wait_seconds;
    to->busy_seconds += from->busy_seconds;
    from->bytes_sent = 0;
    from->wait_seconds = from->busy_seconds = 0.0;
}

void nd_rounds_count_traffic(nd_run *run)
{
    if (!run->rounds)
        return;
    move_traffic(run->comm, run->rounds->inside);
    move_traffic(run->comm, run->rounds->across);
}

static nd_status copy_view(nd_backend *b, nd_view into, nd_view from)
{
    return from.data ? b->ops.copy(b, into.data, from.data, nd_view_bytes(nd_as_const(from)))
                     : ND_OK;
}

/* Copies the replicas of a worker that has just adopted the start. */
static nd_status copy_weights(nd_run *run)
{
    const nd_model *from = run->rounds->worker[0].model;
    for (int64_t i = 0; i < from->params.count; i++) {
        nd_weight *into = &run->model->weights[i], *w = &from->weights[i];
        ND_TRY(copy_view(run->backend, into->scales, w->scales));
        ND_TRY(copy_view(run->backend, w->packed.data ? into->packed : into->codes,
                         w->packed.data ? w->packed : w->codes));
        ND_TRY(copy_view(run->backend, into->dense, w->dense));
    }
    return ND_OK;
}

static nd_status take_start(const nd_run *run, nd_run *w)
{
    nd_backend *b = run->backend;
    for (int64_t i = 0; i < run->model->params.count; i++)
        if (w->masters[i].data)
            ND_TRY(b->ops.axpby(b, w->masters[i], 1.0f, nd_as_const(run->masters[i]), 0.0f));
    return ND_OK;
}

nd_status nd_rounds_adopt(nd_run *run, bool workers)
{
    nd_rounds *r = run->rounds;
    nd_run *first = &r->worker[0];
    const bool rounded = run->config.optimizer.master_precision == ND_PRECISION_BF16;
    const bool apart = !workers || rounded; /* workers differ slightly from the start */
    if (apart) {
        ND_TRY(nd_weight_gather_run(&first->gather, first->model, run->masters, true, r->inside));
        ND_TRY(copy_weights(run));
    }
    for (int i = 0; i < r->carried; i++) {
        if (workers)
            ND_TRY(take_start(run, &r->worker[i]));
        ND_TRY(nd_run_publish_weights(&r->worker[i], true));
    }
    return apart ? ND_OK : copy_weights(run);
}
