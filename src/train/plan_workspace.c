#include "train/plan.h"
#include "train/step.h"

#include <stdlib.h>

/* One layer, one micro-batch, and every projected matrix due for a new subspace. */
static void narrow(nd_config *config)
{
    config->training.batch_size = config->training.micro_batch_size = nd_config_micro_batch(config);
    config->model.num_layers = 1;
    config->training.galore_update_freq = 1;
    config->training.use_async_loader = false;
    config->data.dataset = ND_DATASET_SYNTHETIC;
    config->data.n_samples = config->training.batch_size;
}

nd_status nd_plan_measure_workspace(const nd_config *config, nd_plan *plan)
{
    nd_config *narrowed = malloc(sizeof *narrowed);
    nd_run *run = calloc(1, sizeof *run);
    nd_comm *comm = NULL;
    nd_step_result result;
    nd_status status = ND_OK;
    if (!narrowed || !run) {
        status = ND_FAIL(ND_ENOMEM, "no memory to measure the workspace");
        goto done;
    }
    *narrowed = *config;
    narrow(narrowed);
    ND_TRY_GOTO(nd_comm_create_solo(&comm), done);
    comm->local_size = plan->ranks; /* which share the cores of this machine */
    ND_TRY_GOTO(nd_run_create(narrowed, comm, run), done);
    ND_TRY_GOTO(nd_run_start_loader(run), done);
    ND_TRY_GOTO(nd_step_run(run, false, &result), done);
    plan->workspace = run->backend->ops.workspace_bytes(run->backend);
done:
    if (run)
        nd_run_destroy(run);
    nd_comm_destroy(comm);
    free(run);
    free(narrowed);
    return status;
}
