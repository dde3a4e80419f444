/* A run's parameters, their owners and its workers, before there is data or memory; and its end. */
#include "dist/device.h"
#include "optim/mtp_schedule.h"
#include "train/outer_step.h"
#include "train/run/run_backend.h"

#include <stdlib.h>
#include <string.h>

enum { NEAR_RANKS = 3 };

/* Writes which numbers of ranks can share `micro_batches`: at most three up to `ranks` and three
 * beyond. */
static void list_ranks(int64_t micro_batches, int64_t workers, int64_t ranks, char *text,
                       size_t size)
{
    int64_t near[2 * NEAR_RANKS];
    int count = 0;
    size_t used = 0;
    for (int64_t n = micro_batches < ranks ? micro_batches : ranks; n > 0 && count < NEAR_RANKS;
         n--)
        if (micro_batches % n == 0 && (n % workers == 0 || workers % n == 0))
            near[count++] = n;
    const int below = count;
    for (int64_t n = ranks + 1; n <= micro_batches && n <= 64 * ranks && count < below + NEAR_RANKS;
         n++)
        if (micro_batches % n == 0 && (n % workers == 0 || workers % n == 0))
            near[count++] = n;
    for (int i = 0; i < count; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%lld",
                                 i == 0           ? ""
                                 : i == count - 1 ? " or "
                                                  : ", ",
                                 (long long)near[i < below ? below - 1 - i : i]);
    snprintf(text + used, size - used, " rank%s", count == 1 && near[0] == 1 ? "" : "s");
}

/* Distributes a step's micro-batches over the ranks. */
static nd_status split_batch(nd_run *run)
{
    const nd_config *c = &run->config;
    const int64_t micro = nd_config_micro_batch(c);
    char fitting[2 * NEAR_RANKS * 24 + 8];
    run->micro_batches = c->training.batch_size / micro;
    if (run->micro_batches % run->comm->size != 0) {
        list_ranks(run->micro_batches, c->dist.workers, run->comm->size, fitting, sizeof fitting);
        return ND_FAIL(ND_ECONFIG,
                       "[training] batch_size = %lld in micro-batches of %lld makes %lld of them, "
                       "which %d ranks cannot share evenly; start %s, or choose batch_size "
                       "and micro_batch_size so that batch_size / micro_batch_size is a multiple "
                       "of %d",
                       (long long)c->training.batch_size, (long long)micro,
                       (long long)run->micro_batches, run->comm->size, fitting, run->comm->size);
    }
    run->local_micro_batches = run->micro_batches / run->comm->size;
    return ND_OK;
}

/* Sets the configured part_kib and group_ranks. Errors: ND_ECONFIG when these do not divide the
 * ranks. */
static nd_status set_groups(nd_run *run)
{
    const int group = (int)run->config.dist.group_ranks;
    if (group > 0) {
        ND_TRY(nd_groups_check(run->comm->size, NULL, 0, group));
        run->comm->group_ranks = group;
    }
    if (nd_config_part_bytes(&run->config) > 0)
        run->comm->part_bytes = nd_config_part_bytes(&run->config);
    return ND_OK;
}

/* The outer step needs whole parameters. */
static bool by_rows(const nd_run *run, int64_t index)
{
    const nd_param *param = &run->model->params.list[index];
    return nd_optimizer_row_block(&run->config, param) < param->rows &&
           !nd_config_has_rounds(&run->config);
}

/* After whole matrices are assigned, fills up the least loaded ranks. */
static nd_status share_rows(nd_run *run)
{
    for (int64_t i = 0; i < run->model->params.count; i++) {
        const nd_param *param = &run->model->params.list[i];
        if (by_rows(run, i))
            ND_TRY(nd_ownership_share_rows(&run->own, i, param->rows,
                                           nd_optimizer_row_block(&run->config, param),
                                           nd_optimizer_cost(&run->config, param)));
    }
    return ND_OK;
}

static nd_status assign_owners(nd_run *run)
{
    const nd_params *params = &run->model->params;
    ND_AUTOFREE double *cost = calloc((size_t)params->count, sizeof *cost);
    ND_AUTOFREE bool *owned = calloc((size_t)params->count, sizeof *owned);
    ND_FAIL_IF(!cost || !owned, ND_ENOMEM, "no memory for the table of owners");
    for (int64_t i = 0; i < params->count; i++)
        cost[i] = by_rows(run, i) ? 0.0 : nd_optimizer_cost(&run->config, &params->list[i]);
    ND_TRY(nd_ownership_create(cost, params->count, nd_comm_group(run->comm), &run->own));
    ND_TRY(share_rows(run));
    ND_TRY(nd_ownership_spread(&run->own, cost, run->comm->size / run->own.ranks));
    for (int64_t i = 0; i < params->count; i++)
        owned[i] = nd_run_owned_rows(run, i).count > 0;
    ND_TRY(nd_optimizer_create(&run->config, params, owned, run->backend, &run->optimizer));
    for (int64_t i = 0; i < params->count; i++)
        if (run->own.rows[i])
            nd_optimizer_own_rows(run->optimizer, i, nd_run_owned_rows(run, i).first,
                                  nd_run_owned_rows(run, i).count);
    return ND_OK;
}

/* A run without rounds, or a worker of another. */
static nd_status prepare_worker(nd_run *run)
{
    nd_model_config model_config = nd_model_config_from(&run->config);
    nd_mtp_weights(&run->config, 0,
                   model_config.loss.offset_weight); /* later ones are not larger */
    ND_TRY(split_batch(run));
    ND_TRY(set_groups(run));
    run->backend->log = &run->log;
    ND_TRY(nd_model_create(&model_config, run->backend, &run->model));
    ND_TRY(assign_owners(run));
    run->gather.codes = (nd_weight_sync)run->config.dist.weight_sync;
    run->gather.stream.kernels = nd_device_code_kernels(run->backend);
    run->gather.embedding = (nd_embedding_sync)run->config.dist.embedding_sync;
    run->masters = calloc((size_t)run->model->params.count, sizeof *run->masters);
    ND_FAIL_IF(!run->masters, ND_ENOMEM, "no memory for the table of masters");
    return nd_gradient_reducer_create(&run->config, run->comm, run->model, &run->own,
                                      run->optimizer, &run->reducer);
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
                   "[dist] workers = %lld and %d ranks do not divide each other: ranks share a "
                   "worker evenly, or workers a rank; start %lld or %lld "
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
static nd_status make_worker(nd_run *run, nd_rounds *r, nd_run *w)
{
    w->saving.worker_of = run;
    w->config = run->config;
    w->config.training.micro_batch_size = nd_config_micro_batch(&run->config);
    w->config.training.batch_size /= r->workers;
    w->comm = r->inside;
    w->backend = run->backend;
    return prepare_worker(w);
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
        run->own.owner[i] = nd_rounds_rank(run, r->outer->home.owner[i], i);
    return ND_OK;
}

/* Errors: ND_ECONFIG when neither of K and the number of ranks divides the other. */
static nd_status prepare_rounds(nd_run *run)
{
    const nd_model_config model_config = nd_model_config_from(&run->config);
    const int64_t workers = run->config.dist.workers;
    const int ranks = run->comm->size, carried = ranks < workers ? (int)workers / ranks : 1;
    ND_TRY(check_ranks(&run->config, ranks));
    ND_TRY(split_batch(run));
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
        ND_TRY(make_worker(run, r, &worker[i]));
    run->backend->log = &run->log; /* not the last worker's */
    return assign_homes(run, r);
}

nd_status nd_run_prepare(nd_run *run)
{
    nd_run_resolve_precision(&run->config, run->backend);
    return nd_config_has_rounds(&run->config) ? prepare_rounds(run) : prepare_worker(run);
}

static void destroy_rounds(nd_rounds *r)
{
    if (!r)
        return;
    nd_outer_destroy(r->outer);
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

void nd_run_destroy(nd_run *run)
{
    destroy_rounds(run->rounds);
    free(run->saving.copy);
    free(run->timing.slow);
    free(run->data.tokenizer);
    nd_identity_destroy(&run->identity);
    nd_loader_close(run->data.loader);
    nd_dataset_close(run->data.train);
    nd_dataset_close(run->data.val);
    nd_weight_gather_destroy(&run->gather);
    nd_gradient_reducer_destroy(run->reducer);
    nd_optimizer_destroy(run->optimizer);
    nd_ownership_destroy(&run->own);
    nd_reference_model_close(run->reference);
    nd_model_destroy(run->model);
    free(run->masters);
    nd_replay_destroy(run->replay);
    if (run->comm)
        nd_device_detach(run->comm);
    for (int category = 0; category < ND_MEMORY_COUNT; category++)
        nd_arena_release(&run->arenas[category]);
    if (run->comm)
        nd_comm_set_device(run->comm, NULL);
    nd_backend_destroy(run->backend);
    memset(run, 0, sizeof *run);
}
