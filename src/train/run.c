#include "train/run.h"

#include "core/base/directory.h"
#include "core/base/durable_file.h"
#include "dist/device.h"
#include "train/rounds.h"
#include "train/run_backend.h"
#include "train/run_groups.h"
#include "train/run_memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TOKENIZER_BYTES_MAX = 1 << 28 };

static nd_status open_split(const nd_run *run, const char *split, const char *tokenizer,
                            nd_dataset **dataset)
{
    const nd_config *c = &run->config;
    const nd_dataset_options options = {
        .synthetic = c->data.dataset == ND_DATASET_SYNTHETIC,
        .path = c->data.data_path,
        .split = split,
        .seq_length = c->training.seq_length,
        .vocab_size = c->model.vocab_size,
        .tokenizer_sha256 = tokenizer,
        .n_samples = c->data.n_samples,
        .seed = (uint64_t)c->training.seed,
    };
    return nd_dataset_open(&options, dataset);
}

/* Both splits must use one tokenizer. No `val` if no held-out shard is long enough for a window. */
static nd_status open_data(nd_run *run)
{
    const nd_config *c = &run->config;
    const bool synthetic = c->data.dataset == ND_DATASET_SYNTHETIC;
    ND_TRY(open_split(run, "train", NULL, &run->data.train));
    if (!synthetic) {
        int64_t windows;
        ND_TRY(nd_dataset_measure(c->data.data_path, "val", c->training.seq_length,
                                  &run->data.short_held_out, &windows));
        if (windows == 0)
            return ND_OK;
        run->data.short_held_out = 0;
    }
    return open_split(run, "val", synthetic ? NULL : nd_dataset_tokenizer_sha256(run->data.train),
                      &run->data.val);
}

/* For checkpoints. Read once, so that a file that is damaged or replaced later is in none. */
static nd_status read_tokenizer(nd_run *run)
{
    char path[ND_CONFIG_TEXT_MAX + 32], hex[ND_SHA256_HEX_SIZE];
    const char *expected = nd_dataset_tokenizer_sha256(run->data.train);
    bool exists;
    if (run->comm->rank != 0 || run->config.data.dataset == ND_DATASET_SYNTHETIC)
        return ND_OK;
    snprintf(path, sizeof path, "%s/tokenizer.model", run->config.data.data_path);
    ND_TRY(nd_path_exists(path, &exists));
    if (!exists)
        return ND_OK;
    ND_TRY(nd_read_whole_file(path, TOKENIZER_BYTES_MAX, ND_EDATA, &run->data.tokenizer,
                              &run->data.tokenizer_bytes));
    ND_TRY(nd_sha256_hex(run->data.tokenizer, run->data.tokenizer_bytes, hex));
    return ND_CHECK(strcmp(hex, expected) == 0, ND_EDATA,
                    "%s: damaged, or of other data: its SHA-256 is %.12s..., that of the "
                    "shards' tokenizer is %.12s...",
                    path, hex, expected);
}

nd_status nd_run_split_batch(nd_run *run)
{
    const nd_config *c = &run->config;
    const int64_t micro = nd_config_micro_batch(c);
    run->micro_batches = c->training.batch_size / micro;
    ND_FAIL_IF(run->micro_batches % run->comm->size != 0, ND_ECONFIG,
               "[training] batch_size = %lld in micro-batches of %lld sequences makes %lld "
               "of them, which %d ranks cannot share evenly; choose batch_size and "
               "micro_batch_size so that batch_size / micro_batch_size is a multiple of %d",
               (long long)c->training.batch_size, (long long)micro, (long long)run->micro_batches,
               run->comm->size, run->comm->size);
    run->local_micro_batches = run->micro_batches / run->comm->size;
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

nd_row_span nd_run_owned_rows(const nd_run *run, int64_t index)
{
    return nd_ownership_span(&run->own, index, nd_comm_member(run->comm),
                             run->model->params.list[index].rows);
}

static nd_status assign_owners(nd_run *run)
{
    const nd_params *params = &run->model->params;
    double *cost = calloc((size_t)params->count, sizeof *cost);
    bool *owned = calloc((size_t)params->count, sizeof *owned);
    nd_status status = ND_OK;
    ND_FAIL_GOTO(!cost || !owned, done, ND_ENOMEM, "no memory for the table of owners");
    for (int64_t i = 0; i < params->count; i++)
        cost[i] = by_rows(run, i) ? 0.0 : nd_optimizer_cost(&run->config, &params->list[i]);
    ND_TRY_GOTO(nd_ownership_create(cost, params->count, nd_comm_group(run->comm), &run->own),
                done);
    ND_TRY_GOTO(share_rows(run), done);
    ND_TRY_GOTO(nd_ownership_spread(&run->own, cost, run->comm->size / run->own.ranks), done);
    for (int64_t i = 0; i < params->count; i++)
        owned[i] = nd_run_owned_rows(run, i).count > 0;
    ND_TRY_GOTO(nd_optimizer_create(&run->config, params, owned, run->backend, &run->optimizer),
                done);
    for (int64_t i = 0; i < params->count; i++)
        if (run->own.rows[i])
            nd_optimizer_own_rows(run->optimizer, i, nd_run_owned_rows(run, i).first,
                                  nd_run_owned_rows(run, i).count);
done:
    free(cost);
    free(owned);
    return status;
}

/* In chunks, so that a large matrix needs no second copy. `first`: offset in the parameter. */
static nd_status initialize_master(nd_run *run, const nd_param *param, nd_view master,
                                   int64_t first, float *values, nd_view device)
{
    nd_backend *b = run->backend;
    const int64_t chunk = device.cols, total = nd_view_count(nd_as_const(master));
    for (int64_t done = 0; done < total; done += chunk) {
        const int64_t count = total - done < chunk ? total - done : chunk;
        char *at = (char *)master.data + (size_t)done * nd_dtype_size(master.dtype);
        nd_param_initialize(param, (uint64_t)run->config.training.seed, first + done, count,
                            values);
        ND_TRY(b->ops.upload(b, device.data, values, (size_t)count * sizeof *values));
        ND_TRY(b->ops.axpby(b, nd_view_of(at, master.dtype, 1, count), 1.0f,
                            nd_cview_of(device.data, ND_F32, 1, count), 0.0f));
    }
    return ND_OK;
}

static nd_status initialize_masters(nd_run *run)
{
    enum { CHUNK = 1 << 22 };
    nd_backend *b = run->backend;
    const nd_params *params = &run->model->params;
    const size_t bytes = CHUNK * sizeof(float);
    void *memory = NULL;
    float *values = malloc(bytes);
    nd_status status =
        ND_CHECK(values, ND_ENOMEM, "no memory to initialise parameters (%zu bytes)", bytes);
    ND_IF_OK(b->ops.allocate(b, bytes, &memory));
    for (int64_t i = 0; status == ND_OK && i < params->count; i++)
        if (run->masters[i].data)
            status = initialize_master(run, &params->list[i], run->masters[i],
                                       nd_run_owned_rows(run, i).first * params->list[i].cols,
                                       values, nd_view_of(memory, ND_F32, 1, CHUNK));
    b->ops.release(b, memory, bytes);
    free(values);
    return status;
}

nd_status nd_run_publish_weights(nd_run *run, bool whole)
{
    return nd_weight_gather_run(&run->gather, run->model, run->masters, whole, run->comm);
}

nd_status nd_run_publish_projector(nd_run *run, int64_t index)
{
    const nd_state *state = nd_projectors_state(nd_optimizer_projectors(run->optimizer), index);
    for (int part = 0; part < state->codec->parts; part++)
        ND_TRY(run->comm->ops.broadcast_device(run->comm, state->parts[part].data,
                                               nd_view_bytes(nd_as_const(state->parts[part])),
                                               run->own.owner[index]));
    return ND_OK;
}

nd_status nd_run_publish_projectors(nd_run *run)
{
    if (run->rounds) {
        for (int i = 0; i < nd_run_workers(run); i++)
            ND_TRY(nd_run_publish_projectors(nd_run_worker(run, i)));
        return ND_OK;
    }
    for (int64_t i = 0; i < run->model->params.count; i++)
        if (nd_projectors_shape(nd_optimizer_projectors(run->optimizer), i))
            ND_TRY(nd_run_publish_projector(run, i));
    return ND_OK;
}

nd_status nd_run_reset_error_feedback(nd_run *run)
{
    if (run->rounds) {
        for (int i = 0; i < nd_run_workers(run); i++)
            ND_TRY(nd_run_reset_error_feedback(nd_run_worker(run, i)));
        return ND_OK;
    }
    ND_TRY(nd_gradient_reducer_reset_all_feedback(run->reducer));
    return run->gather.embedding == ND_EMBEDDING_WIRE_DENSE ? ND_OK
                                                            : nd_run_publish_weights(run, true);
}

nd_status nd_run_prepare(nd_run *run)
{
    nd_run_resolve_precision(&run->config, run->backend);
    return nd_config_has_rounds(&run->config) ? nd_rounds_prepare(run) : nd_run_prepare_worker(run);
}

nd_status nd_run_prepare_worker(nd_run *run)
{
    const nd_model_config model_config = nd_model_config_from(&run->config);
    ND_TRY(nd_run_split_batch(run));
    ND_TRY(nd_run_set_groups(run));
    run->backend->log = &run->log;
    ND_TRY(nd_model_create(&model_config, run->backend, &run->model));
    ND_TRY(assign_owners(run));
    run->gather.codes = (nd_weight_wire)run->config.dist.weight_sync;
    run->gather.stream.kernels = nd_device_code_kernels(run->backend);
    run->gather.embedding = (nd_embedding_wire)run->config.dist.embedding_sync;
    run->masters = calloc((size_t)run->model->params.count, sizeof *run->masters);
    ND_FAIL_IF(!run->masters, ND_ENOMEM, "no memory for the table of masters");
    return nd_gradient_reducer_create(&run->config, run->comm, run->model, &run->own,
                                      run->optimizer, &run->reducer);
}

static nd_status open_reference(nd_run *run)
{
    if (!nd_config_uses_reference(&run->config))
        return ND_OK;
    ND_TRY(nd_reference_model_open(&run->config, run->comm, run->data.train, &run->reference));
    nd_log_line(&run->log, "collider excess of losses over those of %s",
                nd_reference_model_directory(run->reference));
    return ND_OK;
}

/* Initialises a worker's state. */
static nd_status initialize_worker(nd_run *run)
{
    nd_projectors *projectors = nd_optimizer_projectors(run->optimizer);
    if (run->config.hardware.cuda_graphs)
        ND_TRY(nd_replay_create(run->backend, run->backend->log, &run->replay));
    for (int64_t i = 0; i < run->model->params.count; i++)
        if (nd_run_owned_rows(run, i).count > 0 && nd_projectors_shape(projectors, i))
            ND_TRY(nd_projectors_initialize(projectors, i));
    return initialize_masters(run);
}

static nd_status create(nd_run *run)
{
    run->slow = calloc((size_t)run->comm->size, sizeof *run->slow);
    ND_FAIL_IF(!run->slow, ND_ENOMEM, "no memory for the times of %d ranks", run->comm->size);
    ND_TRY(open_data(run));
    run->model->config.pieces = nd_dataset_vocab_size(run->data.train);
    for (int i = 0; i < nd_run_workers(run); i++)
        nd_run_worker(run, i)->model->config.pieces = run->model->config.pieces;
    if (nd_model_pieces(&run->model->config) < run->config.model.vocab_size)
        nd_log_line(&run->log,
                    "padding the data's tokenizer has %lld pieces and the model %lld rows: the "
                    "others take no part in any softmax",
                    (long long)run->model->config.pieces, (long long)run->config.model.vocab_size);
    ND_TRY(read_tokenizer(run));
    ND_TRY(nd_run_memory_reserve(run));
    ND_TRY(open_reference(run));
    for (int i = 0; i < nd_run_workers(run); i++) {
        nd_run *w = nd_run_worker(run, i);
        w->reference = run->reference;
        ND_TRY(initialize_worker(w));
    }
    return run->rounds ? initialize_masters(run) : ND_OK;
}

/* Sets the device of run->comm and its way of adding ([dist] grad_reduction); nd_device_detach and
 * nd_comm_set_device undo it. Errors: ND_ECONFIG if the device cannot add so. */
static nd_status attach_backend(nd_run *run)
{
    nd_comm *comm = run->comm;
    const nd_backend *b = run->backend;
    if (run->rounds) /* only workers exchange weights and gradients */
        comm = run->rounds->inside;
    nd_comm_set_device(comm, run->backend);
    comm->reduction = (nd_reduction)run->config.dist.grad_reduction;
    ND_FAIL_IF(comm->reduction == ND_REDUCTION_ALLREDUCE && !nd_device_owns(b), ND_ECONFIG,
               "[dist] grad_reduction = allreduce is NCCL's and needs GPUs, but this run computes "
               "on %s; use grad_reduction = owners",
               b->ops.host_memory ? "CPUs" : b->ops.name);
    return nd_device_attach(comm);
}

nd_status nd_run_create(const nd_config *config, nd_comm *comm, nd_run *run)
{
    const bool rounds = nd_config_has_rounds(config);
    run->config = *config;
    run->comm = comm;
    nd_status status = ND_OK;
    if (!run->backend)
        status = nd_run_create_backend(config, comm, &run->backend);
    ND_TRY(nd_comm_agree(comm, status));
    ND_TRY(nd_comm_agree(comm, nd_run_share_traits(comm, run->backend)));
    if (!rounds)
        ND_TRY(nd_comm_agree(comm, attach_backend(run)));
    ND_TRY(nd_run_choose_groups(run));
    ND_TRY(nd_comm_agree(comm, nd_run_prepare(run)));
    if (rounds) /* nd_run_prepare has made the comms of the workers */
        ND_TRY(nd_comm_agree(comm, attach_backend(run)));
    ND_TRY(nd_comm_agree(comm, create(run)));
    ND_TRY(nd_run_publish_projectors(run));
    return run->rounds ? nd_rounds_adopt(run, true) : nd_run_publish_weights(run, true);
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
    const int64_t end =
        run->position.data_start + nd_dataset_window_count(run->data.train) * c->data.epochs;
    const int64_t left = end > run->position.next_sample ? end - run->position.next_sample : 0;
    const int64_t last =
        run->position.step + (left + c->training.batch_size - 1) / c->training.batch_size;
    return last < c->training.total_steps ? last : c->training.total_steps;
}

void nd_run_destroy(nd_run *run)
{
    nd_rounds_destroy(run->rounds);
    free(run->saving.copy);
    free(run->slow);
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
        if (run->arenas[category].backend)
            nd_arena_release(&run->arenas[category]);
    if (run->comm)
        nd_comm_set_device(run->comm, NULL);
    nd_backend_destroy(run->backend);
    memset(run, 0, sizeof *run);
}
