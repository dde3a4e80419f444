#include "train/log/metrics.h"

#include "core/base/directory.h"
#include "core/base/durable_file.h"
#include "core/model/mtp.h"
#include "data/text/json.h"
#include "train/approximations.h"
#include "train/checkpoint/checkpoint_save.h"
#include "train/plan/operations.h"
#include "train/rounds.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH = ND_CONFIG_TEXT_MAX + 64 };

/* Copies the lines of steps up to `last` into a new file that replaces the old one. */
static nd_status drop_later_steps(const char *path, int64_t last)
{
    char temporary[PATH + 8];
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    bool exists;
    ND_TRY(nd_path_exists(path, &exists));
    if (!exists)
        return ND_OK;
    FILE *in = fopen(path, "re"), *out = in ? fopen(temporary, "we") : NULL;
    if (!out) {
        const int reason = errno;
        if (in)
            fclose(in);
        return ND_FAIL(ND_EIO, "cannot replace %s: %s", path, strerror(reason));
    }
    ND_AUTOFREE char *line = NULL;
    size_t scratch = 0;
    nd_status status = ND_OK;
    while (status == ND_OK && getline(&line, &scratch, in) > 0) {
        json_auto_t *object = NULL;
        status = nd_json_parse(line, strlen(line), 0, path, &object, NULL);
        const json_t *step = json_object_get(object, "step");
        line[strcspn(line, "\n")] = '\0'; /* which the last may lack */
        if (json_is_integer(step) && json_integer_value(step) <= last)
            fprintf(out, "%s\n", line);
    }
    const bool failed = status == ND_OK && (!feof(in) || ferror(out) != 0);
    fclose(in);
    if (fclose(out) != 0 || failed)
        status = ND_FAIL(ND_EIO, "cannot replace %s: %s", path, strerror(errno));
    if (status != ND_OK) {
        unlink(temporary);
        return status;
    }
    return nd_durable_rename(temporary, path);
}

static void path_of(const nd_run *run, char path[PATH])
{
    snprintf(path, PATH, "%s/metrics.jsonl", run->config.logging.run_dir);
}

static nd_status open_jsonl(const nd_run *run, nd_metrics *metrics)
{
    char path[PATH];
    path_of(run, path);
    const int again = run->restored.step > 0 ? 0 : O_TRUNC;
    metrics->jsonl = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | again, 0666);
    return ND_CHECK(metrics->jsonl >= 0, ND_EIO, "cannot write %s: %s", path, strerror(errno));
}

/* Logs the error once and clears it: a run continues without metrics. */
static void warn_and_continue(nd_run *run, nd_status status)
{
    if (status == ND_OK)
        return;
    nd_log_line(&run->log, "warning: %s; training continues", nd_error_get()->message);
    nd_error_clear();
}

void nd_metrics_open(nd_run *run, nd_metrics *metrics)
{
    char path[PATH];
    *metrics = (nd_metrics){.opened = true};
    path_of(run, path);
    if (run->restored.step > 0)
        warn_and_continue(run, drop_later_steps(path, run->restored.step));
    warn_and_continue(run, open_jsonl(run, metrics));
    if (!run->config.logging.tensorboard)
        return;
    snprintf(path, sizeof path, "%s/tensorboard", run->config.logging.run_dir);
    warn_and_continue(run, nd_tensorboard_open(path, run->restored.step, &metrics->tensorboard));
}

void nd_metrics_close(nd_metrics *metrics)
{
    if (metrics->opened && metrics->jsonl >= 0)
        close(metrics->jsonl);
    nd_tensorboard_close(metrics->tensorboard);
    memset(metrics, 0, sizeof *metrics);
}

/* Adds a value; without memory *object becomes NULL and stays so. */
static void put(json_t **object, const char *key, json_t *value)
{
    if (json_object_set_new(*object, key, value) == 0)
        return;
    json_decref(*object);
    *object = NULL;
}

static json_t *memory_json(const nd_run *run)
{
    json_t *mem = json_object();
    const size_t workspace = run->backend->ops.workspace_bytes(run->backend);
    const size_t loader = nd_loader_bytes(run->data.loader);
    for (int i = 0; i < ND_MEMORY_COUNT; i++)
        put(&mem, nd_memory_category_name((nd_memory_category)i),
            json_integer((json_int_t)run->arenas[i].size));
    put(&mem, "workspace", json_integer((json_int_t)workspace));
    put(&mem, "loader", json_integer((json_int_t)loader));
    if (run->saving.copy)
        put(&mem, "saved_copy", json_integer((json_int_t)run->saving.copy_bytes));
    put(&mem, "program",
        json_integer((json_int_t)nd_memory_program(workspace + loader + run->saving.copy_bytes)));
    put(&mem, "rss", json_integer((json_int_t)nd_memory_resident()));
    put(&mem, "peak", json_integer((json_int_t)nd_memory_resident_peak()));
    return mem;
}

/* Bytes of optimizer state of the ternary matrices this rank owns, in memory, and the number of
 * their weights: with projectors, without scratch. */
static void add_matrix_state(json_t **object, nd_run *whole)
{
    const nd_run *run = nd_run_worker(whole, 0);
    const nd_params *params = &run->model->params;
    nd_optimizer_state states[ND_OPTIMIZER_STATES_MAX];
    size_t bytes = 0;
    int64_t weights = 0;
    for (int64_t i = 0; i < params->count; i++) {
        const nd_param *p = &params->list[i];
        const int count = nd_optimizer_states(run->optimizer, i, states);
        if (p->role != ND_ROLE_TERNARY || count == 0)
            continue;
        weights += p->rows * p->cols;
        for (int s = 0; s < count; s++)
            bytes += nd_view_bytes(nd_as_const(states[s].view));
    }
    put(object, "matrix_state_bytes", json_integer((json_int_t)bytes));
    put(object, "matrix_weights", json_integer(weights));
}

/* null if a skipped step has no value */
static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

enum { PHASE_SCALARS = 4 * ND_PHASE_COUNT };

/* The scalars of each phase. */
static void set_phases(const nd_times_summary *times, char tags[PHASE_SCALARS][48],
                       nd_scalar scalars[PHASE_SCALARS])
{
    static const char *const kinds[] = {"min_ms", "median_ms", "max_ms", "max_rank"};
    for (int i = 0; i < PHASE_SCALARS; i++) {
        const nd_phase_range *r = &times->phases[i / 4];
        const double values[] = {r->min, r->median, r->max, r->rank};
        snprintf(tags[i], sizeof tags[i], "ranks/%s_%s", nd_phase_name((nd_phase)(i / 4)),
                 kinds[i % 4]);
        scalars[i] = (nd_scalar){tags[i], values[i % 4]};
    }
}

static nd_status write_tensorboard(nd_metrics *metrics, const nd_run *run,
                                   const nd_step_result *step, const nd_evaluation *evaluation,
                                   double tokens_per_second)
{
    if (!metrics->tensorboard)
        return ND_OK;
    nd_scalar scalars[12 + PHASE_SCALARS];
    char tags[PHASE_SCALARS][48];
    int count = 0;
    scalars[count++] = (nd_scalar){"train/loss", step->loss};
    scalars[count++] = (nd_scalar){"train/total_loss", step->total_loss};
    scalars[count++] = (nd_scalar){"train/grad_norm", step->grad_norm};
    scalars[count++] = (nd_scalar){"train/lr", step->lr};
    scalars[count++] = (nd_scalar){"train/kept_fraction", step->kept_fraction};
    scalars[count++] = (nd_scalar){"speed/tokens_per_sec", tokens_per_second};
    scalars[count++] = (nd_scalar){"speed/step_ms", step->step_ms};
    scalars[count++] = (nd_scalar){"speed/data_wait_ms", step->data_wait_ms};
    scalars[count++] = (nd_scalar){"speed/comm_wait_ms", step->comm_wait_ms};
    scalars[count++] = (nd_scalar){"speed/comm_busy_ms", step->comm_busy_ms};
    set_phases(&step->times, tags, scalars + count);
    count += PHASE_SCALARS;
    if (evaluation) {
        scalars[count++] = (nd_scalar){"val/loss", evaluation->loss};
        scalars[count++] = (nd_scalar){"val/bpb", evaluation->bits_per_byte};
    }
    return nd_tensorboard_write(metrics->tensorboard, run->position.step, scalars, count);
}

static nd_status write_line(nd_metrics *metrics, const nd_run *run, const json_t *object)
{
    char path[PATH];
    path_of(run, path);
    if (metrics->jsonl < 0)
        ND_TRY(open_jsonl(run, metrics));
    ND_AUTOFREE char *text = nd_json_text(object, JSON_COMPACT | JSON_REAL_PRECISION(17));
    ND_FAIL_IF(!text, ND_ENOMEM, "no memory for a line of %s", path);
    const size_t length = strlen(text);
    text[length] = '\n'; /* replaces the NUL */
    return nd_file_append(metrics->jsonl, path, text, length + 1);
}

/* Reports once that steps are missing, and once that writing works again. */
static void note_missing(nd_metrics *metrics, nd_run *run, nd_status status)
{
    if (status != ND_OK && metrics->missing++ == 0)
        warn_and_continue(run, status);
    nd_error_clear();
    if (status != ND_OK || metrics->missing == 0)
        return;
    nd_log_line(&run->log,
                "metrics are written again; those of %lld steps up to step %lld are missing",
                (long long)metrics->missing, (long long)run->position.step - 1);
    metrics->missing = 0;
}

static json_t *phases_json(const nd_times_summary *times)
{
    json_t *object = json_object();
    for (int p = 0; p < ND_PHASE_COUNT; p++) {
        const nd_phase_range *range = &times->phases[p];
        put(&object, nd_phase_name(p),
            json_pack("{s:f,s:f,s:f,s:i}", "min", range->min, "median", range->median, "max",
                      range->max, "rank", range->rank));
    }
    return object;
}

/* What readers would otherwise have to derive from the run's configuration and log. */
static void add_run(json_t **object, const nd_run *run, const nd_step_result *step,
                    int64_t last_step)
{
    const nd_params *params = &run->model->params;
    char approximate[128];
    put(object, "ranks", json_integer(run->comm->size));
    put(object, "last_step", json_integer(last_step));
    put(object, "parameters", json_integer(nd_params_total(params)));
    put(object, "ternary_parameters", json_integer(nd_params_ternary(params)));
    nd_wire_approximations(&run->config, run->comm->size, approximate, sizeof approximate);
    if (approximate[0])
        put(object, "approximate", json_string(approximate));
    put(object, "phases_ms", phases_json(&step->times));
    if (step->round_ended)
        put(object, "round_ended", json_true());
    if (step->stop_requested)
        put(object, "stop_requested", json_true());
}

void nd_metrics_write(nd_metrics *metrics, nd_run *run, const nd_step_result *step,
                      const nd_evaluation *evaluation, double tokens_per_second, int64_t last_step)
{
    const double flops =
        tokens_per_second * nd_model_operations(run->model->config,
                                                nd_mtp_active_heads(&run->model->config),
                                                step->kept_fraction);
    const double peak = run->start.peak_flops * run->comm->size;
    json_auto_t *o = json_pack(
        "{s:I,s:I,s:o,s:o,s:f,s:o,s:f,s:f,s:f,s:f,s:f,s:f,s:I,s:f,s:f,s:o,s:I,s:I}", "step",
        (json_int_t)run->position.step, "tokens", (json_int_t)run->position.tokens, "loss",
        number(step->loss), "total_loss", number(step->total_loss), "lr", step->lr, "grad_norm",
        number(step->grad_norm), "tokens_per_sec", tokens_per_second, "step_ms", step->step_ms,
        "data_wait_ms", step->data_wait_ms, "comm_wait_ms", step->comm_wait_ms, "comm_busy_ms",
        step->comm_busy_ms, "save_ms", nd_save_ms_since_last(run), "comm_bytes",
        (json_int_t)step->comm_bytes, "kept_fraction", step->kept_fraction, "mfu",
        peak > 0.0 ? flops / peak : 0.0, "mem", memory_json(run), "restarts",
        (json_int_t)run->position.restarts, "skipped", (json_int_t)run->health.skipped);
    add_matrix_state(&o, run);
    add_run(&o, run, step, last_step);
    put(&o, "run_id", json_string(run->identity.run_id));
    put(&o, "config_sha256", json_string(run->identity.config_sha256));
    put(&o, "data_sha256", json_string(run->identity.data_sha256));
    if (evaluation) {
        put(&o, "val_loss", number(evaluation->loss));
        put(&o, "val_bpb", number(evaluation->bits_per_byte));
    }
    nd_status status =
        o ? write_line(metrics, run, o) : ND_FAIL(ND_ENOMEM, "no memory for a line of metrics");
    ND_IF_OK(write_tensorboard(metrics, run, step, evaluation, tokens_per_second));
    note_missing(metrics, run, status);
}
