#include "train/checkpoint/load_model.h"

#include "train/run/run_backend.h"

#include <stdlib.h>
#include <string.h>

static nd_status load_weights(nd_loaded_model *l, const nd_checkpoint *c)
{
    for (int64_t i = 0; i < l->model->params.count; i++) {
        const nd_param *p = &l->model->params.list[i];
        const int64_t index = nd_checkpoint_find(c, p->name, "master");
        ND_FAIL_IF(index < 0, ND_ECHECKPOINT, "%s: holds no tensor %s", c->directory, p->name);
        const nd_checkpoint_tensor *t = &c->tensors[index];
        ND_FAIL_IF(t->rows != p->rows || t->cols != p->cols, ND_ECHECKPOINT,
                   "%s: %s is [%lld, %lld], its configuration says [%lld, %lld]", c->directory,
                   p->name, (long long)t->rows, (long long)t->cols, (long long)p->rows,
                   (long long)p->cols);
        const nd_view shape = nd_view_of(NULL, t->dtype, t->rows, t->cols);
        const size_t bytes = nd_view_bytes(nd_as_const(shape));
        ND_AUTOFREE void *host = malloc(bytes);
        void *device = NULL;
        nd_backend *b = l->backend;
        ND_FAIL_IF(!host, ND_ENOMEM, "no memory to read %s (%zu bytes)", p->name, bytes);
        ND_TRY(nd_checkpoint_read(c, index, host));
        nd_status status = b->ops.allocate(b, bytes, &device);
        ND_IF_OK(b->ops.upload(b, device, host, bytes));
        ND_IF_OK(
            nd_model_load_weight(l->model, i, nd_cview_of(device, t->dtype, t->rows, t->cols)));
        b->ops.release(b, device, bytes);
        ND_TRY(status);
    }
    return ND_OK;
}

static nd_status load(const nd_load_options *o, const nd_comm *comm, nd_checkpoint *c,
                      nd_loaded_model *l)
{
    char path[ND_CHECKPOINT_PATH_MAX + 40];
    snprintf(path, sizeof path, "%s/config.ini", l->directory);
    nd_config_defaults(&l->config);
    ND_TRY(nd_config_read_file(&l->config, path));
    nd_config_leave_machine(&l->config);
    if (o->precision) {
        ND_TRY(nd_config_set_key(&l->config, "hardware", "precision", o->precision, "--precision"));
        l->config.hardware.backward_precision = ND_BACKWARD_SAME;
    }
    if (o->target)
        ND_TRY(nd_config_set_key(&l->config, "hardware", "target", o->target, "--target"));
    if (o->threads > 0) {
        char threads[32];
        snprintf(threads, sizeof threads, "%lld", (long long)o->threads);
        ND_TRY(nd_config_set_key(&l->config, "hardware", "threads", threads, "--threads"));
    }
    ND_TRY(nd_config_check(&l->config));
    l->step = c->step;
    if (o->reference_only) {
        const nd_cpu_backend_options options = {.reference_only = true};
        ND_TRY(nd_cpu_backend_create(&options, &l->backend));
    } else {
        ND_TRY(nd_run_create_backend(&l->config, comm, &l->backend));
    }
    nd_run_resolve_precision(&l->config, l->backend);
    nd_model_config model_config = nd_model_config_from(&l->config);
    if (!o->extra_heads)
        model_config = nd_model_config_without_extra_heads(model_config);
    model_config.activation_quant = o->activation_quant;
    if (o->micro_batch > 0)
        model_config.micro_batch = o->micro_batch;
    if (o->seq_length > 0)
        model_config.seq_length = o->seq_length;
    ND_TRY(nd_model_create(&model_config, l->backend, &l->model));
    nd_arena_start_sizing(&l->weights, "codes", l->backend);
    ND_TRY(nd_model_reserve_weights(l->model, &l->weights));
    ND_TRY(nd_arena_commit(&l->weights));
    ND_TRY(nd_model_reserve_weights(l->model, &l->weights));
    ND_TRY(load_weights(l, c));
    if (!c->has_tokenizer)
        return ND_OK;
    snprintf(path, sizeof path, "%s/tokenizer.model", l->directory);
    ND_TRY(nd_tokenizer_open(path, &l->tokenizer));
    l->model->pieces = nd_tokenizer_vocab_size(l->tokenizer);
    return ND_OK;
}

/* The status is the same on all ranks. */
static nd_status resolve_and_load(const nd_load_options *options, nd_comm *comm, nd_loaded_model *l)
{
    nd_log warnings = {.terminal = comm->rank == 0 ? stderr : NULL};
    nd_checkpoint c;
    memset(l, 0, sizeof *l);
    ND_TRY(
        nd_comm_agree(comm, nd_checkpoint_resolve(options->checkpoint, &warnings, l->directory)));
    ND_TRY(nd_checkpoint_open_on_all(comm, l->directory, true, &c));
    const nd_status status = nd_comm_agree(comm, load(options, comm, &c, l));
    nd_checkpoint_close(&c);
    return status;
}

nd_status nd_load_model(const nd_load_options *options, nd_comm *comm, nd_loaded_model *l)
{
    char directory[ND_CHECKPOINT_PATH_MAX];
    nd_status status = ND_OK;
    bool gone = true;
    for (int attempt = 0; attempt < 2 && gone; attempt++) {
        nd_error_clear();
        status = resolve_and_load(options, comm, l);
        if (status == ND_OK)
            return ND_OK;
        strcpy(directory, l->directory);
        nd_loaded_model_release(l);
        gone = status != ND_EPEER && nd_checkpoint_gone(directory);
        if (status != ND_EPEER) {
            const nd_error before = *nd_error_get();
            ND_TRY(comm->ops.broadcast(comm, &gone, sizeof gone, 0));
            nd_error_set(&before);
        }
    }
    return gone ? nd_checkpoint_fail_gone(directory) : status;
}

void nd_loaded_model_release(nd_loaded_model *l)
{
    nd_tokenizer_close(l->tokenizer);
    nd_model_destroy(l->model);
    nd_arena_release(&l->weights);
    nd_backend_destroy(l->backend);
    memset(l, 0, sizeof *l);
}
