/* A run with its data, memory and initial weights. */
#include "core/base/directory.h"
#include "core/base/durable_file.h"
#include "dist/device.h"
#include "train/rounds.h"
#include "train/run/run_backend.h"
#include "train/run/run_memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    ND_TRY(nd_read_whole_file(path, ND_EDATA, &run->data.tokenizer, &run->data.tokenizer_bytes));
    ND_TRY(nd_sha256_hex(run->data.tokenizer, run->data.tokenizer_bytes, hex));
    return ND_CHECK(strcmp(hex, expected) == 0, ND_EDATA,
                    "%s: damaged, or of other data: its SHA-256 is %.12s..., that of the "
                    "shards' tokenizer is %.12s...",
                    path, hex, expected);
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
    enum { CHUNK = 1 << 20 };
    nd_backend *b = run->backend;
    const nd_params *params = &run->model->params;
    const size_t bytes = CHUNK * sizeof(float);
    void *memory = NULL;
    ND_AUTOFREE float *values = malloc(bytes);
    ND_FAIL_IF(!values, ND_ENOMEM, "no memory to initialize parameters (%zu bytes)", bytes);
    nd_status status = b->ops.allocate(b, bytes, &memory);
    for (int64_t i = 0; status == ND_OK && i < params->count; i++)
        if (run->masters[i].data)
            status = initialize_master(run, &params->list[i], run->masters[i],
                                       nd_run_owned_rows(run, i).first * params->list[i].cols,
                                       values, nd_view_of(memory, ND_F32, 1, CHUNK));
    b->ops.release(b, memory, bytes);
    return status;
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
    nd_slow_rank **slow = &run->timing.slow;
    *slow = calloc((size_t)run->comm->size, sizeof **slow);
    ND_FAIL_IF(!*slow, ND_ENOMEM, "no memory for the times of %d ranks", run->comm->size);
    ND_TRY(open_data(run));
    run->model->pieces = nd_dataset_vocab_size(run->data.train);
    for (int i = 0; i < nd_run_workers(run); i++)
        nd_run_worker(run, i)->model->pieces = run->model->pieces;
    if (nd_model_pieces(run->model) < run->config.model.vocab_size)
        nd_log_line(&run->log,
                    "padding the data's tokenizer has %lld pieces and the model %lld rows: the "
                    "others are left out of every softmax",
                    (long long)run->model->pieces, (long long)run->config.model.vocab_size);
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

nd_status nd_run_attach(const nd_config *config, nd_comm *comm, nd_run *run)
{
    nd_status status = ND_OK;
    run->config = *config;
    run->comm = comm;
    if (!run->backend)
        status = nd_run_create_backend(config, comm, &run->backend);
    ND_TRY(nd_comm_agree(comm, status));
    ND_TRY(nd_comm_agree(comm, nd_run_share_traits(comm, run->backend)));
    return nd_config_has_rounds(config) ? ND_OK : nd_comm_agree(comm, attach_backend(run));
}

nd_status nd_run_build(nd_run *run)
{
    nd_comm *comm = run->comm;
    ND_TRY(nd_comm_agree(comm, nd_run_prepare(run)));
    if (run->rounds) /* nd_run_prepare has made the comms of the workers */
        ND_TRY(nd_comm_agree(comm, attach_backend(run)));
    ND_TRY(nd_comm_agree(comm, create(run)));
    ND_TRY(nd_run_publish_projectors(run));
    return run->rounds ? nd_rounds_adopt(run, true) : nd_run_publish_weights(run, true);
}

nd_status nd_run_create(const nd_config *config, nd_comm *comm, nd_run *run)
{
    ND_TRY(nd_run_attach(config, comm, run));
    comm->group_ranks = 0;
    comm->part_bytes = 0;
    return nd_run_build(run);
}
