#include "train/checkpoint/checkpoint_save.h"

#include "core/base/clock.h"
#include "core/base/durable_file.h"
#include "train/approximations.h"
#include "train/checkpoint/checkpoint_parts.h"
#include "train/fault_points.h"
#include "train/run/run_directory.h"

#include <stdlib.h>
#include <string.h>

bool nd_save_ready(const nd_run *run)
{
    return run->saving.save && nd_background_done(&run->saving.save->job);
}

void nd_save_count_failure(nd_run *run)
{
    run->saving.failures++;
}

double nd_save_ms_since_last(nd_run *run)
{
    const double ms = run->saving.ms;
    run->saving.ms = 0.0;
    return ms;
}

void nd_save_stop(nd_save **save)
{
    nd_save *s = *save;
    if (!s)
        return;
    atomic_store(&s->abandoned, true);
    nd_background_wait(&s->job);
    nd_checkpoint_close(&s->c);
    pthread_cond_destroy(&s->progressed);
    pthread_mutex_destroy(&s->mutex);
    free(s->summaries);
    free(s->slices);
    free(s->tensors);
    free(s);
    *save = NULL;
}

void nd_save_abandon(nd_run *run)
{
    nd_save_stop(&run->saving.save);
}

/* Once all ranks know the error none writes any more, and the incomplete directory is removed. */
static nd_status fail(nd_run *run, nd_status status)
{
    const nd_error error = *nd_error_get();
    if (run->comm->rank == 0 && status != ND_EPEER && run->saving.save->temporary[0] &&
        nd_run_directory_confirm(run) == ND_OK)
        nd_directory_remove(run->saving.save->temporary);
    nd_error_set(&error);
    nd_save_abandon(run);
    return status;
}

static nd_status publish(void *context)
{
    nd_save *s = context;
    ND_TRY(nd_run_directory_confirm(s->run));
    ND_TRY(nd_save_publish(s));
    nd_save_rotate(s);
    return ND_OK;
}

/* Iterates over what this rank writes, in the order of its file. */
typedef struct saved_views {
    const nd_run *run;
    int64_t index, unit;
    int part, count;
    nd_optimizer_state parts[ND_CHECKPOINT_PARTS_MAX];
} saved_views;

static saved_views saved_views_of(const nd_run *run)
{
    return (saved_views){.run = run, .unit = -1};
}

static bool next_view(saved_views *v, nd_view *view)
{
    while (v->part == v->count) {
        v->part = v->count = 0;
        if (++v->unit == nd_checkpoint_units(v->run)) {
            v->unit = 0;
            v->index++;
        }
        if (v->index == v->run->model->params.count)
            return false;
        if (nd_checkpoint_writes(v->run, v->unit, v->index))
            v->count = nd_checkpoint_parts(v->run, v->unit, v->index, v->parts);
    }
    *view = v->parts[v->part++].view;
    return true;
}

/* The bytes of all tensors that this rank saves, whether or not memory is allocated for them. */
size_t nd_save_copy_bytes(const nd_run *run)
{
    size_t bytes = 0;
    saved_views each = saved_views_of(run);
    nd_view view;
    while (next_view(&each, &view))
        bytes += nd_view_bytes(nd_as_const(view));
    return bytes;
}

nd_status nd_save_copy_owned(nd_run *run, void **copy, size_t *copy_bytes)
{
    nd_backend *b = run->backend;
    const size_t bytes = nd_save_copy_bytes(run);
    if (!*copy) {
        *copy = malloc(bytes + 1);
        ND_FAIL_IF(!*copy, ND_ENOMEM,
                   "no memory for a copy of masters and state (%zu bytes of the host), which "
                   "snapshots and [logging] checkpoint_async = true need",
                   bytes);
        *copy_bytes = bytes;
    }
    char *at = *copy;
    saved_views each = saved_views_of(run);
    nd_view view;
    while (next_view(&each, &view)) {
        const size_t size = nd_view_bytes(nd_as_const(view));
        ND_TRY(b->ops.download(b, at, view.data, size));
        at += size;
    }
    return ND_OK;
}

static nd_status start_directory(const nd_save *s)
{
    ND_TRY(nd_directory_create(s->parent));
    ND_TRY(nd_directory_remove(s->temporary));
    return nd_directory_create(s->temporary);
}

nd_status nd_save_create(nd_run *run, bool background, nd_save **save)
{
    const size_t parts =
        (size_t)(run->model->params.count * nd_checkpoint_units(run)) * ND_CHECKPOINT_PARTS_MAX;
    nd_save *s = *save = calloc(1, sizeof *s);
    ND_FAIL_IF(!s, ND_ENOMEM, "no memory for a checkpoint");
    s->run = run;
    s->background = background;
    s->c = (nd_checkpoint){.step = run->position.step,
                           .tokens = run->position.tokens,
                           .restarts = run->position.restarts,
                           .next_sample = run->position.next_sample,
                           .data_start = run->position.data_start,
                           .health = run->health};
    nd_wire_approximations(&run->config, run->comm->size, s->c.approximate,
                           sizeof s->c.approximate);
    pthread_mutex_init(&s->mutex, NULL);
    pthread_cond_init(&s->progressed, NULL);
    s->tensors = calloc(parts, sizeof *s->tensors);
    s->summaries = calloc(run->comm->rank == 0 ? (size_t)run->comm->size : 1, sizeof *s->summaries);
    ND_FAIL_IF(!s->tensors || !s->summaries, ND_ENOMEM, "no memory for the checkpoint's tables");
    return nd_identity_copy(&run->identity, &s->c.identity);
}

static nd_status prepare(nd_run *run, nd_save *s)
{
    s->durable = true;
    ND_TRY(nd_run_directory_confirm(run));
    nd_checkpoint_directory(&run->config, s->parent, sizeof s->parent);
    ND_TRY(nd_checkpoint_step_path(s->final, s->parent, "", run->position.step));
    ND_TRY(nd_checkpoint_step_path(s->temporary, s->parent, ND_CHECKPOINT_UNFINISHED,
                                   run->position.step));
    if (s->background && !run->backend->ops.host_memory) {
        ND_TRY(nd_save_copy_owned(run, &run->saving.copy, &run->saving.copy_bytes));
        s->copy = run->saving.copy; /* kept for the next save */
    }
    return run->comm->rank == 0 ? start_directory(s) : ND_OK;
}

/* Between writing files and publishing. */
static nd_status exchange(nd_run *run, nd_save *s)
{
    nd_comm *comm = run->comm;
    nd_fault_point_of(comm->rank, s->c.step, "save_gather");
    ND_TRY(nd_save_gather(s));
    s->stage = ND_SAVE_PUBLISHING;
    if (comm->rank == 0)
        nd_background_start(&s->job, publish, s, s->background);
    return ND_OK;
}

static void announce(nd_run *run, nd_save *s)
{
    run->saving.failures = 0;
    run->saving.step = s->c.step;
    if (run->comm->rank != 0)
        return;
    strcpy(run->saving.state_sha256, s->c.state_sha256);
    nd_log_line(&run->log, "saved   %s, state %s", s->final, run->saving.state_sha256);
    char *rest = s->notes;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;)
        if (*line)
            nd_log_line(&run->log, "%s", line);
    if (s->unlinked && !run->saving.warned_of_latest)
        nd_log_line(&run->log,
                    "warning: %s has no `latest`: the file system has no symbolic links, or "
                    "something else has this name; the newest complete step is taken instead",
                    s->parent);
    run->saving.warned_of_latest |= s->unlinked;
}

static nd_status advance(nd_run *run)
{
    nd_save *s = run->saving.save;
    nd_comm_set_phase(run->comm, run->position.step, "save");
    const nd_status mine = nd_save_error(nd_background_wait(&s->job));
    const nd_status status = nd_comm_agree(run->comm, mine);
    if (status != ND_OK)
        return fail(run, status);
    if (s->stage == ND_SAVE_WRITING)
        return exchange(run, s);
    announce(run, s);
    nd_save_abandon(run);
    return ND_OK;
}

static nd_status finish(nd_run *run)
{
    while (run->saving.save)
        ND_TRY(advance(run));
    return ND_OK;
}

static nd_status begin(nd_run *run, bool background)
{
    ND_TRY(finish(run));
    nd_comm_set_phase(run->comm, run->position.step, "save");
    nd_status status = nd_save_create(run, background, &run->saving.save);
    ND_IF_OK(prepare(run, run->saving.save));
    status = nd_comm_agree(run->comm, nd_save_error(status));
    if (status != ND_OK)
        return run->saving.save ? fail(run, status) : status;
    nd_fault_point_of(run->comm->rank, run->position.step, "save_start");
    nd_background_start(&run->saving.save->job, nd_save_write_and_release, run->saving.save,
                        background);
    return background ? ND_OK : finish(run);
}

nd_status nd_save_begin(nd_run *run, bool background)
{
    const double start = nd_seconds();
    nd_status status = begin(run, background);
    ND_IF_OK(nd_run_reset_error_feedback(run));
    run->saving.ms += 1e3 * (nd_seconds() - start);
    return status;
}

nd_status nd_save_advance(nd_run *run)
{
    const double start = nd_seconds();
    const nd_status status = run->saving.save ? advance(run) : ND_OK;
    run->saving.ms += 1e3 * (nd_seconds() - start);
    return status;
}

nd_status nd_save_finish(nd_run *run)
{
    const double start = nd_seconds();
    const nd_status status = finish(run);
    run->saving.ms += 1e3 * (nd_seconds() - start);
    return status;
}
