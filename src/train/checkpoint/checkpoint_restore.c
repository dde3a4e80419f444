/* A run from a checkpoint. */
#include "train/checkpoint/checkpoint_parts.h"
#include "train/resume_check.h"

#include <stdlib.h>
#include <string.h>

/* Whether there is any optimizer state. An imported model has masters only: its optimizer starts
 * fresh, and the masters may change their type. */
static bool has_state(const nd_checkpoint *c)
{
    for (int64_t i = 0; i < c->tensor_count; i++)
        if (strcmp(c->tensors[i].part, "master") != 0)
            return true;
    return c->step > 0;
}

/* The workers of the run that wrote it; 0: none (workers = 1, sync_every = 1). */
static int64_t workers_of(const nd_checkpoint *c)
{
    int64_t workers = 0;
    for (int64_t i = 0; i < c->tensor_count; i++) {
        char *end;
        const char *part = c->tensors[i].part;
        const int64_t k = part[0] == 'w' ? strtoll(part + 1, &end, 10) : 0;
        if (part[0] == 'w' && strcmp(end, ".master") == 0 && k >= workers)
            workers = k + 1;
    }
    return workers;
}

/* Whether a run without workers wrote it and this one has some, which then all start from it. */
static bool is_of_no_workers(const nd_run *run, const nd_checkpoint *c)
{
    return run->rounds && has_state(c) && workers_of(c) == 0;
}

/* Whether values of one type become those of another: an imported model's masters, and masters in
 * bf16 the start of workers, which is f32. */
static bool converts(const nd_run *run, const nd_checkpoint *c, nd_dtype from, nd_dtype into)
{
    if (!has_state(c))
        return from == ND_F32;
    return from == ND_BF16 && into == ND_F32 && is_of_no_workers(run, c);
}

static nd_status upload_converted(nd_backend *b, nd_view into, const void *host, nd_dtype type,
                                  size_t bytes)
{
    void *device = NULL;
    nd_status status = b->ops.allocate(b, bytes, &device);
    ND_IF_OK(b->ops.upload(b, device, host, bytes));
    ND_IF_OK(b->ops.axpby(b, into, 1.0f, nd_cview_of(device, type, into.rows, into.cols), 0.0f));
    ND_IF_OK(b->ops.synchronize(b));
    b->ops.release(b, device, bytes);
    return status;
}

/* For parameters owned by rows `whole` has the full shape and `into` receives this rank's rows. */
static nd_status restore_tensor(nd_run *run, const nd_checkpoint *c, int64_t param_index,
                                const char *part, nd_view whole, nd_view into)
{
    nd_backend *b = run->backend;
    const nd_param *param = &run->model->params.list[param_index];
    const int64_t index = nd_checkpoint_find(c, param->name, part);
    ND_FAIL_IF(index < 0, ND_ECHECKPOINT,
               "%s: holds no %s of %s, which this configuration needs (another optimizer, "
               "state_bits, use_galore, galore_rank, galore_residual, galore_projector_bits, "
               "outer_state_bits or model?)",
               c->directory, part, param->name);
    const nd_checkpoint_tensor *t = &c->tensors[index];
    const bool convert = converts(run, c, t->dtype, whole.dtype), sliced = t->whole_rows > 0;
    const nd_view stored = nd_view_of(NULL, t->dtype, sliced ? t->whole_rows : t->rows,
                                      sliced ? t->whole_cols : t->cols);
    if (stored.rows != whole.rows || stored.cols != whole.cols ||
        (t->dtype != whole.dtype && !convert))
        return ND_FAIL(ND_ECHECKPOINT,
                       "%s: %s of %s is %s [%lld, %lld], this configuration needs %s [%lld, %lld]",
                       c->directory, part, param->name, nd_dtype_name(t->dtype),
                       (long long)stored.rows, (long long)stored.cols, nd_dtype_name(whole.dtype),
                       (long long)whole.rows, (long long)whole.cols);
    const size_t size = nd_view_bytes(nd_as_const(stored));
    ND_AUTOFREE char *host = malloc(size);
    ND_FAIL_IF(!host, ND_ENOMEM, "no memory to read %s (%zu bytes)", param->name, size);
    const nd_row_span span = nd_run_owned_rows(run, param_index);
    const size_t from =
        run->own.rows[param_index] ? nd_checkpoint_row_at(param, stored, span.first) : 0;
    const size_t bytes = (size_t)nd_view_count(nd_as_const(into)) * nd_dtype_size(t->dtype);
    ND_TRY(sliced ? nd_checkpoint_read_range(c, index, from, bytes, host + from)
                  : nd_checkpoint_read(c, index, host));
    return t->dtype == into.dtype ? b->ops.upload(b, into.data, host + from, bytes)
                                  : upload_converted(b, into, host + from, t->dtype, bytes);
}

static void describe_workers(int64_t workers, char text[64])
{
    if (workers > 1)
        snprintf(text, 64, "%lld workers", (long long)workers);
    else
        snprintf(text, 64, "%s",
                 workers == 1 ? "1 worker with sync_every > 1"
                              : "no workers (workers = 1, sync_every = 1)");
}

/* The run has as many, or the checkpoint has none. */
static nd_status check_workers(const nd_run *run, const nd_checkpoint *c)
{
    const int64_t was = workers_of(c), is = run->rounds ? run->rounds->workers : 0;
    char theirs[64], ours[64];
    if (was == 0 || was == is)
        return ND_OK;
    describe_workers(was, theirs);
    describe_workers(is, ours);
    return ND_FAIL(
        ND_ECHECKPOINT,
        "%s: is of a run with %s, but this configuration has %s; each worker has masters "
        "and optimizer state of its own: choose [dist] workers = %lld%s, or start from a "
        "checkpoint of a run without workers",
        c->directory, theirs, ours, (long long)was, was == 1 ? " and sync_every > 1" : "");
}

static nd_status clear(nd_backend *b, nd_view view)
{
    const size_t bytes = nd_view_bytes(nd_as_const(view));
    ND_AUTOFREE void *zeros = calloc(1, bytes);
    ND_FAIL_IF(!zeros, ND_ENOMEM, "no memory for %zu bytes", bytes);
    return b->ops.upload(b, view.data, zeros, bytes);
}

static bool is_residual(const char *part)
{
    const char *name = strchr(part, '.'); /* of a worker */
    return strcmp(name ? name + 1 : part, "outer_residual") == 0;
}

/* From a checkpoint without workers: the start is its master, each worker gets its optimizer state,
 * and the outer step's state is that of a first round. */
static nd_status spread_parameter(nd_run *run, const nd_checkpoint *c, int64_t unit, int64_t index)
{
    nd_optimizer_state mine[ND_CHECKPOINT_PARTS_MAX];
    const int count = nd_checkpoint_parts(run, unit, index, mine);
    if (unit == 0 && count > 0)
        ND_TRY(restore_tensor(run, c, index, "master", mine[0].view, mine[0].view));
    for (int p = 1; p < count; p++) {
        const char *name = unit > 0 ? strchr(mine[p].name, '.') + 1 : mine[p].name;
        ND_TRY(unit == 0 || is_residual(name)
                   ? clear(run->backend, mine[p].view)
                   : restore_tensor(run, c, index, name, mine[p].view, mine[p].view));
    }
    return ND_OK;
}

/* Restores what this rank owns of a parameter in a unit. */
static nd_status restore_parameter(nd_run *run, const nd_checkpoint *c, bool drop_residuals,
                                   int64_t unit, int64_t index)
{
    nd_optimizer_state mine[ND_CHECKPOINT_PARTS_MAX], all[ND_CHECKPOINT_PARTS_MAX];
    int count = nd_checkpoint_parts(run, unit, index, mine);
    if (count == 0)
        return ND_OK;
    memcpy(all, mine, sizeof all);
    if (run->own.rows[index])
        ND_TRY(nd_checkpoint_whole_parts(run, index, all, &count));
    if (!has_state(c))
        count = 1;
    for (int p = 0; p < count; p++)
        ND_TRY(drop_residuals && is_residual(mine[p].name)
                   ? clear(run->backend, mine[p].view)
                   : restore_tensor(run, c, index, mine[p].name, all[p].view, mine[p].view));
    return ND_OK;
}

static nd_status check_tokenizer(const nd_run *run, const nd_checkpoint *c)
{
    const char *data = nd_dataset_tokenizer_sha256(run->data.train);
    for (int64_t i = 0; i < c->file_count; i++)
        ND_FAIL_IF(strcmp(c->files[i].name, "tokenizer.model") == 0 && data[0] &&
                       strcmp(c->files[i].sha256, data) != 0,
                   ND_EDATA,
                   "%s: packed with the tokenizer of SHA-256 %.12s...; the checkpoint %s was "
                   "trained with %.12s...",
                   run->config.data.data_path, data, c->directory, c->files[i].sha256);
    return ND_OK;
}

/* The configuration it was written with. */
static nd_status read_config(const nd_checkpoint *c, nd_config *before)
{
    char path[ND_CHECKPOINT_PATH_MAX + 40];
    snprintf(path, sizeof path, "%s/config.ini", c->directory);
    nd_config_defaults(before);
    return nd_config_read_file(before, path);
}

/* Logs changed keys, some of which affect the rest of the run. */
static nd_status log_differences(nd_run *run, const nd_config *before)
{
    ND_AUTOFREE char *text = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&text, &size);
    ND_FAIL_IF(!memory, ND_ENOMEM, "no memory for the differences of configurations");
    nd_config_write_differences(before, &run->config, memory);
    fclose(memory);
    char *rest = text;
    for (char *line; rest && (line = strsep(&rest, "\n")) != NULL;)
        if (*line)
            nd_log_line(&run->log, "changed %s", line);
    nd_resume_describe_lengths(run, before);
    return ND_OK;
}

/* The first parameter that only one of the two has, and which. */
static const char *first_unmatched(const nd_run *run, const nd_checkpoint *c, const char **only_in)
{
    const nd_params *params = &run->model->params;
    *only_in = "the configuration";
    for (int64_t i = 0; i < params->count; i++) {
        int64_t at = 0;
        while (at < c->tensor_count && (strcmp(c->tensors[at].part, "master") != 0 ||
                                        strcmp(c->tensors[at].param, params->list[i].name) != 0))
            at++;
        if (at == c->tensor_count)
            return params->list[i].name;
    }
    *only_in = "the checkpoint";
    for (int64_t at = 0; at < c->tensor_count; at++)
        if (nd_params_find(params, c->tensors[at].param) < 0)
            return c->tensors[at].param;
    return "none";
}

/* Residuals are in the wire format; with another format they are dropped. */
static bool drops_residuals(const nd_run *run, const nd_checkpoint *c, const nd_config *before)
{
    return before && workers_of(c) > 0 &&
           before->dist.outer_comm_dtype != run->config.dist.outer_comm_dtype;
}

/* `before`: the configuration of a checkpoint with state, else NULL. */
static nd_status restore_own(nd_run *run, const nd_checkpoint *c, const nd_config *before)
{
    int64_t masters = 0;
    const char *only_in;
    ND_TRY(check_workers(run, c));
    for (int64_t i = 0; i < c->tensor_count; i++)
        masters += strcmp(c->tensors[i].part, "master") == 0 && c->tensors[i].from == 0;
    if (masters != run->model->params.count) {
        const char *apart = first_unmatched(run, c, &only_in);
        return ND_FAIL(ND_ECHECKPOINT,
                       "%s: holds %lld parameters, this configuration has %lld; %s is only in %s",
                       c->directory, (long long)masters, (long long)run->model->params.count, apart,
                       only_in);
    }
    /* An imported model has only the run's master, which workers start from. */
    const int64_t units = has_state(c) ? nd_checkpoint_units(run) : 1;
    const bool spread = is_of_no_workers(run, c), drops = drops_residuals(run, c, before);
    for (int64_t at = 0; at < run->model->params.count * units; at++)
        ND_TRY(spread ? spread_parameter(run, c, at % units, at / units)
                      : restore_parameter(run, c, drops, at % units, at / units));
    if (drops)
        nd_log_line(&run->log, "workers error feedback %s: dist.outer_comm_dtype has changed",
                    run->config.dist.outer_comm_dtype == ND_OUTER_COMM_FP32 ? "is dropped"
                                                                            : "begins at zero");
    if (spread)
        nd_log_line(&run->log,
                    "workers all %lld begin with the masters and the optimizer state of a run "
                    "without workers",
                    (long long)run->rounds->workers);
    return ND_OK;
}

static nd_status restore_from(nd_run *run, const nd_checkpoint *c, const nd_config *before)
{
    ND_TRY(restore_own(run, c, before));
    run->restored.any = true;
    run->restored.step = c->step;
    run->position = (nd_position){.step = c->step,
                                  .tokens = c->tokens,
                                  .next_sample = c->next_sample,
                                  .data_start = c->data_start,
                                  .restarts = c->restarts + has_state(c)};
    run->saving.step = has_state(c) ? c->step : -1;
    if (before)
        ND_TRY(log_differences(run, before));
    ND_TRY(nd_resume_check(run, c));
    run->health = c->health;
    return ND_OK;
}

static nd_status restore(nd_run *run, const nd_checkpoint *c)
{
    nd_config before;
    ND_TRY(check_tokenizer(run, c));
    if (has_state(c))
        ND_TRY(read_config(c, &before));
    return restore_from(run, c, has_state(c) ? &before : NULL);
}

nd_status nd_checkpoint_restore_open(nd_run *run, const nd_checkpoint *c)
{
    ND_TRY(nd_comm_agree(run->comm, restore(run, c)));
    ND_TRY(nd_run_publish_projectors(run));
    return run->rounds ? nd_rounds_adopt(run, !has_state(c) || is_of_no_workers(run, c))
                       : nd_run_publish_weights(run, true);
}

nd_status nd_checkpoint_restore(nd_run *run, const char *directory)
{
    ND_CLEANUP(nd_checkpoint_close) nd_checkpoint c = {0};
    ND_TRY(nd_checkpoint_open_on_all(run->comm, directory, false, &c));
    return nd_checkpoint_restore_open(run, &c);
}
