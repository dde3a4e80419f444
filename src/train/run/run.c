#include "train/run/run.h"

#include "train/fault_points.h"

nd_row_span nd_run_owned_rows(const nd_run *run, int64_t index)
{
    return nd_ownership_span(&run->own, index, nd_comm_member(run->comm),
                             run->model->params.list[index].rows);
}

nd_status nd_run_publish_weights(nd_run *run, bool whole)
{
    return nd_weight_gather_run(&run->gather, run->model, run->masters, whole, run->comm);
}

nd_status nd_run_send_weight(nd_run *run, int64_t index)
{
    const struct nd_sending *before = run->gather.added.first;
    const char *phase = run->comm->phase;
    nd_comm_set_phase(run->comm, run->comm->step, "weights"); /* exchanges in flight belong to it */
    ND_TRY(nd_weight_gather_add(&run->gather, run->model, run->masters, index, run->comm));
    nd_comm_set_phase(run->comm, run->comm->step, phase);
    if (run->gather.added.first == before)
        return ND_OK;
    nd_fault_point(run->comm, "weights_begun");
    return ND_CHECK(!nd_fault_requested(run->comm, "fail", "weights_begun"), ND_ENOMEM,
                    "no memory, as the test wants it");
}

nd_status nd_run_send_projector(nd_run *run, int64_t index)
{
    const nd_state *state = nd_projectors_state(nd_optimizer_projectors(run->optimizer), index);
    for (int part = 0; part < state->codec->parts; part++)
        ND_TRY(run->comm->ops.begin_broadcast(run->comm, state->parts[part].data,
                                              nd_view_bytes(nd_as_const(state->parts[part])),
                                              run->own.owner[index]));
    return ND_OK;
}

nd_loader_options nd_run_loader_options(const nd_run *run)
{
    const nd_config *c = &run->config;
    const int64_t local = run->local_micro_batches * run->model->config.micro_batch;
    return (nd_loader_options){
        .dataset = run->data.train,
        .seed = (uint64_t)c->training.seed,
        .shuffle = true,
        .batch_size = c->training.batch_size,
        .first = local * run->comm->rank,
        .count = local,
        .start_sample = run->position.next_sample,
        .async = c->training.use_async_loader,
        .workers = (int)c->training.num_workers,
        .prefetch_batches = (int)c->training.prefetch_batches,
    };
}

size_t nd_run_loader_bytes(const nd_run *run)
{
    const nd_loader_options options = nd_run_loader_options(run);
    return nd_loader_planned_bytes(&options, run->config.training.seq_length);
}

nd_status nd_run_start_loader(nd_run *run)
{
    const nd_loader_options options = nd_run_loader_options(run);
    nd_loader_close(run->data.loader);
    run->data.loader = NULL;
    return nd_loader_open(&options, &run->data.loader);
}

int64_t nd_run_last_step(const nd_run *run)
{
    const nd_config *c = &run->config;
    if (c->data.epochs == 0)
        return c->training.total_steps;
    const int64_t batch = c->training.batch_size;
    int64_t end;
    if (__builtin_mul_overflow(nd_dataset_window_count(run->data.train), c->data.epochs, &end) ||
        __builtin_add_overflow(end, run->position.data_start, &end))
        return c->training.total_steps;
    const int64_t left = end > run->position.next_sample ? end - run->position.next_sample : 0;
    const int64_t steps = left / batch + (left % batch > 0);
    return steps < c->training.total_steps - run->position.step ? run->position.step + steps
                                                                : c->training.total_steps;
}
