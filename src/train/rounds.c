#include "train/rounds.h"

#include <stdlib.h>

int nd_run_workers(const nd_run *run)
{
    return run->rounds ? run->rounds->carried : 1;
}

nd_run *nd_run_worker(nd_run *run, int i)
{
    return run->rounds ? &run->rounds->worker[i] : run;
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

static nd_status check_ranks(const nd_config *c, int ranks)
{
    const int64_t workers = c->dist.workers;
    if (ranks % workers == 0 || workers % ranks == 0)
        return ND_OK;
    int64_t below = ranks, above = ranks;
    while (below > 1 && below % workers != 0 && workers % below != 0)
        below--;
    while (above % workers != 0 && workers % above != 0)
        above++;
    return ND_FAIL(ND_ECONFIG,
                   "[dist] workers = %lld and %d ranks do not divide each other: a worker is a "
                   "number of ranks, or a rank carries a number of workers; start %lld or %lld "
                   "ranks, or choose workers that divide %d",
                   (long long)workers, ranks, (long long)below, (long long)above, ranks);
}

/* Creates the comms of this rank's worker and of its position in all workers. */
static nd_status make_comms(nd_run *run, nd_rounds *r)
{
    nd_comm *comm = run->comm;
    const int workers = (int)r->workers;
    const int size = comm->size > workers ? comm->size / workers : 1;
    ND_TRY(nd_comm_part(comm, (nd_comm_subset){comm->rank / size * size, 1, size}, &r->inside));
    if (size == 1) {
        r->across = comm;
        return ND_OK;
    }
    return nd_comm_part(comm, (nd_comm_subset){comm->rank % size, size, workers}, &r->across);
}

/* A run whose batch is the worker's block; it does not own what it shares with the run. */
static nd_status prepare_worker(nd_run *run, nd_rounds *r, nd_run *w)
{
    w->saving.worker_of = run;
    w->config = run->config;
    w->config.training.micro_batch_size = nd_config_micro_batch(&run->config);
    w->config.training.batch_size /= r->workers;
    w->comm = r->inside;
    w->backend = run->backend;
    return nd_run_prepare_worker(w);
}

/* The rank responsible for a parameter: the owner in its home. */
static nd_status assign_homes(nd_run *run, nd_rounds *r)
{
    const int64_t count = run->model->params.count;
    const int ranks = run->comm->size;
    run->own = (nd_ownership){.count = count, .ranks = ranks, .groups = 1};
    run->own.owner = calloc((size_t)count, sizeof *run->own.owner);
    run->own.rows = calloc((size_t)count, sizeof *run->own.rows);
    run->own.load = calloc((size_t)ranks, sizeof *run->own.load);
    run->masters = calloc((size_t)count, sizeof *run->masters);
    if (!run->own.owner || !run->own.rows || !run->own.load || !run->masters)
        return ND_FAIL(ND_ENOMEM, "no memory for the table of homes");
    ND_TRY(nd_outer_create(run, r));
    for (int64_t i = 0; i < count; i++)
        run->own.owner[i] = nd_rounds_rank(run, r->outer.home.owner[i], i);
    return ND_OK;
}

nd_status nd_rounds_prepare(nd_run *run)
{
    const nd_model_config model_config = nd_model_config_from(&run->config);
    const int64_t workers = run->config.dist.workers;
    const int ranks = run->comm->size, carried = ranks < workers ? (int)workers / ranks : 1;
    ND_TRY(check_ranks(&run->config, ranks));
    ND_TRY(nd_run_split_batch(run));
    ND_TRY(nd_model_create(&model_config, run->backend, &run->model));
    nd_rounds *r = run->rounds = calloc(1, sizeof *r);
    nd_run *worker = calloc((size_t)carried, sizeof *worker);
    if (!r || !worker) {
        free(worker);
        return ND_FAIL(ND_ENOMEM, "no memory for %d workers", carried);
    }
    *r = (nd_rounds){.workers = workers, .carried = carried, .worker = worker};
    r->first = (int)(ranks < workers ? run->comm->rank * carried
                                     : run->comm->rank / (ranks / (int)workers));
    ND_TRY(make_comms(run, r));
    for (int i = 0; i < carried; i++)
        ND_TRY(prepare_worker(run, r, &worker[i]));
    run->backend->log = &run->log; /* not the last worker's */
    return assign_homes(run, r);
}

void nd_rounds_destroy(nd_rounds *r)
{
    if (!r)
        return;
    nd_outer_destroy(&r->outer);
    for (int i = 0; i < r->carried; i++) {
        nd_run *w = &r->worker[i];
        w->backend = NULL;
        w->reference = NULL;
        if (i > 0)
            w->comm = NULL;
        nd_run_destroy(w);
    }
    free(r->worker);
    if (r->inside && r->inside->size > 1)
        nd_comm_destroy(r->across);
    nd_comm_destroy(r->inside);
    free(r);
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

nd_status nd_rounds_synchronize(nd_run *run)
{
    nd_comm_set_phase(run->rounds->inside, run->position.step + 1, "outer step");
    nd_comm_set_phase(run->rounds->across, run->position.step + 1, "outer step");
    ND_TRY(nd_outer_step(run));
    return nd_rounds_adopt(run, true);
}
