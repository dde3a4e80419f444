/* Reading a run's directory, whole or cut off. */
#include "core/base/durable_file.h"
#include "core/base/log.h"
#include "core/model/params.h"
#include "train/checkpoint/checkpoint.h"
#include "train/report/report.h"

#include <errno.h>
#include <jansson.h>
#include <libgen.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct {
    const char *key;
    size_t offset;
} fields[] = {
    {"step", offsetof(nd_report_step, step)},
    {"tokens", offsetof(nd_report_step, tokens)},
    {"loss", offsetof(nd_report_step, loss)},
    {"grad_norm", offsetof(nd_report_step, grad_norm)},
    {"step_ms", offsetof(nd_report_step, step_ms)},
    {"data_wait_ms", offsetof(nd_report_step, data_wait_ms)},
    {"comm_wait_ms", offsetof(nd_report_step, comm_wait_ms)},
    {"comm_bytes", offsetof(nd_report_step, comm_bytes)},
    {"kept_fraction", offsetof(nd_report_step, kept_fraction)},
    {"restarts", offsetof(nd_report_step, restarts)},
    {"val_loss", offsetof(nd_report_step, val_loss)},
    {"val_bpb", offsetof(nd_report_step, val_bpb)},
    /* runs of older versions lack these */
    {"comm_busy_ms", offsetof(nd_report_step, comm_busy_ms)},
    {"matrix_state_bytes", offsetof(nd_report_step, matrix_state_bytes)},
    {"matrix_weights", offsetof(nd_report_step, matrix_weights)},
};
enum { FIELDS = sizeof fields / sizeof fields[0], EVERY_STEP = FIELDS - 5 };

static double *field_of(nd_report_step *step, int field)
{
    return (double *)((char *)step + fields[field].offset);
}

__attribute__((format(printf, 2, 3))) static void note(nd_report_run *run, const char *format, ...)
{
    char *text = NULL, *joined = NULL;
    va_list arguments;
    va_start(arguments, format);
    const int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (length < 0)
        return;
    if (asprintf(&joined, "%s%s\n", run->notes ? run->notes : "", text) >= 0) {
        free(run->notes);
        run->notes = joined;
    }
    free(text);
}

/* Index of a memory category, entered when it is new; -1 when there are too many. */
static int category_index(nd_report *report, const char *name)
{
    for (int i = 0; i < report->category_count; i++)
        if (strcmp(report->categories[i], name) == 0)
            return i;
    if (report->category_count == ND_REPORT_CATEGORIES_MAX ||
        strlen(name) >= sizeof report->categories[0])
        return -1;
    strcpy(report->categories[report->category_count], name);
    return report->category_count++;
}

static void read_memory(nd_report *report, nd_report_run *run, json_t *mem, nd_report_step *step)
{
    const char *key;
    json_t *value;
    json_object_foreach(mem, key, value)
    {
        if (!json_is_number(value))
            continue;
        const double bytes = json_number_value(value);
        if (strcmp(key, "rss") == 0 || strcmp(key, "peak") == 0) {
            step->rss = fmax(step->rss, bytes); /* of NaN and a number, the number */
            continue;
        }
        const int at = category_index(report, key);
        if (at >= 0)
            run->memory[at] = fmax(run->memory[at], bytes);
    }
}

static bool read_step(nd_report *report, nd_report_run *run, const char *line, nd_report_step *step)
{
    json_t *object = json_loads(line, JSON_ALLOW_NUL, NULL);
    if (!json_is_number(json_object_get(object, "step"))) {
        json_decref(object);
        return false;
    }
    for (int f = 0; f < FIELDS; f++) {
        const json_t *value = json_object_get(object, fields[f].key);
        *field_of(step, f) = json_is_number(value) ? json_number_value(value) : NAN;
    }
    step->rss = NAN;
    read_memory(report, run, json_object_get(object, "mem"), step);
    json_decref(object);
    return true;
}

static nd_status append(nd_report_run *run, const nd_report_step *step)
{
    /* A step that was done again after a restart replaces what came of it the first time. */
    while (run->count > 0 && run->steps[run->count - 1].step >= step->step)
        run->count--;
    if ((run->count & (run->count - 1)) == 0) { /* room for the next power of two */
        const size_t scratch = run->count > 0 ? 2 * run->count : 1;
        nd_report_step *grown = realloc(run->steps, scratch * sizeof *grown);
        if (!grown)
            return ND_FAIL(ND_ENOMEM, "no memory for the metrics of %s", run->path);
        run->steps = grown;
    }
    run->steps[run->count++] = *step;
    return ND_OK;
}

static void note_missing_keys(nd_report_run *run)
{
    for (int f = 0; f < EVERY_STEP; f++) {
        size_t missing = 0;
        for (size_t i = 0; i < run->count; i++)
            missing += isnan(*field_of(&run->steps[i], f)) != 0;
        if (missing == run->count)
            note(run, "metrics.jsonl has no `%s`", fields[f].key);
        else if (missing > 0)
            note(run, "metrics.jsonl lacks `%s` in %zu of %zu steps", fields[f].key, missing,
                 run->count);
    }
}

static void note_restarts(nd_report_run *run)
{
    for (size_t i = 0; i < run->count; i++) {
        const double before = i > 0 ? run->steps[i - 1].restarts : 0.0;
        if (run->steps[i].restarts > before)
            note(run, "resumed before step %.0f (restart %.0f)", run->steps[i].step,
                 run->steps[i].restarts);
    }
}

static nd_status read_metrics(nd_report *report, nd_report_run *run)
{
    char path[sizeof run->path + 32], *line = NULL;
    size_t scratch = 0, unreadable = 0;
    ssize_t length;
    bool cut = false;
    nd_status status = ND_OK;
    snprintf(path, sizeof path, "%s/metrics.jsonl", run->path);
    FILE *file = fopen(path, "r");
    if (!file) {
        note(run, "no metrics.jsonl: %s", strerror(errno));
        return ND_OK;
    }
    while (status == ND_OK && (length = getline(&line, &scratch, file)) > 0) {
        nd_report_step step;
        cut = !read_step(report, run, line, &step);
        unreadable += cut;
        if (!cut)
            status = append(run, &step);
    }
    free(line);
    fclose(file);
    if (cut)
        note(run, "the last line of metrics.jsonl is cut off; it is left out");
    if (unreadable > cut)
        note(run, "%zu lines of metrics.jsonl are not JSON objects with a step; they are left out",
             unreadable - cut);
    if (run->count == 0)
        note(run, "metrics.jsonl holds no step");
    else
        note_missing_keys(run);
    note_restarts(run);
    return status;
}

static nd_status read_config(nd_report_run *run)
{
    char path[sizeof run->path + 32];
    snprintf(path, sizeof path, "%s/config.ini", run->path);
    if (access(path, F_OK) != 0) {
        note(run, "no config.ini");
        return ND_OK;
    }
    nd_config *config = malloc(sizeof *config);
    if (!config)
        return ND_FAIL(ND_ENOMEM, "no memory for the configuration of %s", run->path);
    nd_config_defaults(config);
    if (nd_config_read_file(config, path) == ND_OK) {
        run->config = config;
        return ND_OK;
    }
    note(run, "its configuration cannot be read: %s", nd_error_get()->message);
    nd_error_clear();
    free(config);
    return ND_OK;
}

/* The run's parameters; none when its configuration does not tell them. */
static void read_parameters(nd_report_run *run, nd_params *params)
{
    memset(params, 0, sizeof *params);
    if (!run->config)
        return;
    const nd_model_config model = nd_model_config_from(run->config);
    if (nd_config_check_model(run->config) != ND_OK || nd_params_create(&model, params) != ND_OK) {
        memset(params, 0, sizeof *params);
        note(run, "no number of parameters: %s", nd_error_get()->message);
        nd_error_clear();
        return;
    }
    run->parameters = nd_params_total(params);
    for (int64_t i = 0; i < params->count; i++)
        if (params->list[i].role == ND_ROLE_TERNARY)
            run->matrix_parameters += params->list[i].rows * params->list[i].cols;
}

/* The number of ranks, and how the run ended. */
static void read_log(nd_report_run *run)
{
    char path[sizeof run->path + 32], *line = NULL, ending[160] = "";
    size_t scratch = 0;
    snprintf(path, sizeof path, "%s/training.log", run->path);
    FILE *file = fopen(path, "r");
    if (!file) {
        note(run, "no training.log: %s", strerror(errno));
        return;
    }
    while (getline(&line, &scratch, file) > 0) {
        const char *text = nd_log_text(line), *over = strstr(text, " micro-batches, over ");
        if (strncmp(text, "batch ", 6) == 0 && over)
            run->ranks = atoi(over + strlen(" micro-batches, over "));
        if (strncmp(text, "done ", 5) == 0)
            run->finished = true;
        else if (strncmp(text, "step ", 5) == 0 || strncmp(text, "model ", 6) == 0)
            run->finished = false; /* it went on */
        if (strncmp(text, "stopped on a signal", 19) == 0)
            snprintf(ending, sizeof ending, "%.*s", (int)strcspn(text, ";\n"), text);
        else if (strncmp(text, "step ", 5) == 0)
            ending[0] = '\0';
    }
    free(line);
    fclose(file);
    if (ending[0])
        note(run, "%s", ending);
}

static void note_ending(nd_report_run *run)
{
    const int64_t last = run->count > 0 ? (int64_t)run->steps[run->count - 1].step : 0;
    const int64_t total = run->config ? run->config->training.total_steps : 0;
    if (total > 0 && last >= total)
        run->finished = true;
    if (run->finished)
        return;
    if (total > 0)
        note(run, "did not finish: ended after step %lld of %lld", (long long)last,
             (long long)total);
    else
        note(run, "did not finish: ended after step %lld", (long long)last);
}

static double tensor_bytes(const nd_checkpoint_tensor *tensor)
{
    return (double)tensor->rows * (double)tensor->cols * (double)nd_dtype_size(tensor->dtype);
}

static bool is_matrix(const nd_params *params, const char *name)
{
    const int64_t index = nd_params_find(params, name);
    return index >= 0 && params->list[index].role == ND_ROLE_TERNARY;
}

/* Optimizer state as it lies in the newest checkpoint: without the scratch of an update, and of all
 * ranks. The checkpoint may be gone; then these are not known. */
static void read_state(nd_report_run *run, const nd_params *params)
{
    char directory[ND_CHECKPOINT_PATH_MAX];
    nd_checkpoint checkpoint = {0};
    run->state_bytes = run->matrix_state_bytes = NAN;
    if (nd_checkpoint_resolve(run->path, directory) != ND_OK) {
        nd_error_clear();
        return;
    }
    if (nd_checkpoint_open(directory, false, &checkpoint) != ND_OK) {
        note(run, "its newest checkpoint cannot be read: %s", nd_error_get()->message);
        nd_error_clear();
        return;
    }
    run->state_bytes = run->matrix_state_bytes = 0.0;
    for (int64_t i = 0; i < checkpoint.tensor_count; i++) {
        const nd_checkpoint_tensor *tensor = &checkpoint.tensors[i];
        if (strcmp(tensor->part, "master") == 0)
            continue;
        run->state_bytes += tensor_bytes(tensor);
        run->matrix_state_bytes += is_matrix(params, tensor->param) ? tensor_bytes(tensor) : 0.0;
    }
    nd_checkpoint_close(&checkpoint);
}

static void read_command(nd_report_run *run)
{
    char path[sizeof run->path + 32];
    void *text;
    size_t size;
    snprintf(path, sizeof path, "%s/command.txt", run->path);
    if (access(path, F_OK) != 0)
        return;
    if (nd_read_whole_file(path, 1 << 16, ND_EDATA, &text, &size) == ND_OK) {
        run->command = text;
        return;
    }
    note(run, "%s", nd_error_get()->message);
    nd_error_clear();
}

/* A directory with at least one of the files that a run leaves. */
static nd_status check_directory(const char *given, nd_report_run *run)
{
    static const char *const files[] = {"metrics.jsonl", "training.log", "config.ini",
                                        "command.txt"};
    struct stat info;
    if (stat(given, &info) != 0)
        return ND_FAIL(ND_EDATA, "%.1000s: %s", given, strerror(errno));
    if (!S_ISDIR(info.st_mode))
        return ND_FAIL(ND_EDATA, "%.1000s is no directory; name the directory of a run", given);
    char *full = realpath(given, NULL);
    if (!full || strlen(full) >= sizeof run->path) {
        free(full);
        return ND_FAIL(ND_EDATA, "%.1000s: its path cannot be resolved", given);
    }
    strcpy(run->path, full);
    free(full);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char path[sizeof run->path + 32];
        snprintf(path, sizeof path, "%s/%s", run->path, files[i]);
        if (access(path, F_OK) == 0)
            return ND_OK;
    }
    return ND_FAIL(ND_EDATA,
                   "%.1000s holds no run: none of metrics.jsonl, training.log and config.ini",
                   given);
}

/* The last `components` names of the path, joined by '/'. */
static void name_run(nd_report_run *run, int components)
{
    const char *at = run->path + strlen(run->path);
    while (at > run->path && !(at[-1] == '/' && --components == 0))
        at--;
    const size_t length = strlen(at);
    snprintf(run->name, sizeof run->name, "%s",
             length < sizeof run->name ? at : at + length - sizeof run->name + 1);
}

static void assign_role(nd_report_run *run)
{
    const char *base = strrchr(run->path, '/');
    const nd_report_role named = nd_report_role_of_name(base ? base + 1 : run->path);
    run->role = run->config ? nd_report_role_of_config(run->config) : ND_REPORT_OTHER;
    if (run->role == ND_REPORT_OTHER && named != ND_REPORT_OTHER) {
        run->role = named;
        note(run, "taken for `%s` by its name: %s", nd_report_role_name(named),
             run->config ? "its systems are not those of that configuration"
                         : "no configuration tells its systems");
    } else if (named != ND_REPORT_OTHER && named != run->role) {
        note(run, "named after `%s`, but its systems are those of `%s`", nd_report_role_name(named),
             nd_report_role_name(run->role));
    }
}

static nd_status read_run(nd_report *report, const char *path, nd_report_run *run)
{
    nd_params params;
    for (int i = 0; i < ND_REPORT_CATEGORIES_MAX; i++)
        run->memory[i] = NAN;
    ND_TRY(check_directory(path, run));
    name_run(run, 1);
    ND_TRY(read_config(run));
    read_parameters(run, &params);
    const nd_status status = read_metrics(report, run);
    read_log(run);
    note_ending(run);
    read_state(run, &params);
    nd_params_destroy(&params);
    ND_TRY(status);
    read_command(run);
    assign_role(run);
    return ND_OK;
}

static bool names_are_unique(const nd_report *report)
{
    for (int i = 0; i < report->count; i++)
        for (int j = 0; j < i; j++)
            if (strcmp(report->runs[i].name, report->runs[j].name) == 0)
                return false;
    return true;
}

nd_status nd_report_read(const char *const *paths, int count, nd_report *report)
{
    memset(report, 0, sizeof *report);
    report->runs = calloc((size_t)count, sizeof *report->runs);
    if (!report->runs)
        return ND_FAIL(ND_ENOMEM, "no memory for %d runs", count);
    report->count = count;
    for (int i = 0; i < count; i++)
        ND_TRY(read_run(report, paths[i], &report->runs[i]));
    for (int i = 0; i < count; i++)
        for (int j = 0; j < i; j++)
            if (strcmp(report->runs[i].path, report->runs[j].path) == 0)
                return ND_FAIL(ND_ECONFIG, "%.1000s is named twice", report->runs[i].path);
    /* Different paths differ in some component from the end. */
    for (int components = 2; !names_are_unique(report) && components < 32; components++)
        for (int i = 0; i < count; i++)
            name_run(&report->runs[i], components);
    return ND_OK;
}

void nd_report_destroy(nd_report *report)
{
    for (int i = 0; i < report->count; i++) {
        free(report->runs[i].config);
        free(report->runs[i].steps);
        free(report->runs[i].notes);
        free(report->runs[i].command);
    }
    free(report->runs);
    memset(report, 0, sizeof *report);
}
