#include "train/plan/plan.h"
#include "train/plan/plan_cost.h"
#include "train/step.h"

/* One layer, one micro-batch, and every projected matrix due for a new subspace. */
static void narrow(nd_config *config)
{
    config->training.batch_size = config->training.micro_batch_size = nd_config_micro_batch(config);
    config->dist.workers = config->dist.sync_every = 1;
    config->dist.group_ranks = 0;
    config->model.num_layers = 1;
    config->training.galore_update_freq = 1;
    config->training.use_async_loader = false;
    config->data.dataset = ND_DATASET_SYNTHETIC;
    config->data.n_samples = config->training.batch_size;
}

/* Trains `steps` steps of a narrowed model on `backend` or, if that is NULL, on a rank's share of
 * this machine; returns the last one's time and the final workspace. */
static nd_status train_narrowed(const nd_config *config, int ranks, nd_backend *backend, int steps,
                                double *seconds, double *operations, size_t *workspace)
{
    nd_log *log = backend ? backend->log : NULL;
    nd_config narrowed = *config;
    nd_run run = {.backend = backend};
    nd_comm *comm = NULL;
    nd_step_result result;
    narrow(&narrowed);
    ND_TRY(nd_comm_create_solo(&comm));
    comm->local_size = ranks; /* which share the cores of this machine */
    nd_status status = nd_run_create(&narrowed, comm, &run);
    if (backend) /* it logs what it chooses for a shape once */
        backend->log = log;
    ND_IF_OK(nd_run_start_loader(&run));
    for (int i = 0; i < steps; i++)
        ND_IF_OK(nd_step_run(&run, false, &result));
    if (status == ND_OK) {
        *seconds = result.step_ms * 1e-3;
        *operations = nd_plan_step_flops(&run);
        *workspace = run.backend->ops.workspace_bytes(run.backend);
    }
    if (backend) {
        backend->log = log;
        run.backend = NULL; /* owned by the caller */
    }
    nd_run_destroy(&run);
    nd_comm_destroy(comm);
    return status;
}

nd_status nd_plan_measure_workspace(const nd_config *config, nd_plan *plan)
{
    /* A run's beginning, middle and end: Collider and further tokens come and go. */
    enum { PHASES = 3 };
    const bool changes = config->training.use_collider || config->training.use_mtp;
    double seconds, operations;
    nd_config phased = *config;
    phased.training.total_steps = PHASES;
    return train_narrowed(&phased, plan->ranks, NULL, changes ? PHASES : 1, &seconds, &operations,
                          &plan->workspace);
}

/* The first step sees every shape for the first time; the second is typical. */
nd_status nd_plan_measure_flops(const nd_config *config, int ranks, nd_backend *backend,
                                double *flops)
{
    double seconds, operations;
    size_t workspace;
    ND_TRY(train_narrowed(config, ranks, backend, 2, &seconds, &operations, &workspace));
    *flops = operations / seconds;
    return ND_OK;
}
