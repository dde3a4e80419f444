#include "train/resume.h"

#include "train/resume_check.h"
#include "train/run/identity.h"
#include "train/snapshot/snapshot.h"

#include <stdlib.h>
#include <string.h>

/* Rank 0. */
static nd_status choose(nd_run *run, const char *resume, char path[ND_CHECKPOINT_PATH_MAX])
{
    nd_checkpoint c;
    if (strcmp(resume, "auto") == 0)
        return nd_resume_newest(run, path);
    ND_TRY(nd_checkpoint_resolve(resume, &run->log, path));
    ND_TRY(nd_checkpoint_open(path, true, &c));
    nd_checkpoint_close(&c);
    return ND_OK;
}

nd_status nd_resume_choose(nd_run *run, const char *resume, char path[ND_CHECKPOINT_PATH_MAX])
{
    nd_status status = ND_OK;
    path[0] = '\0';
    if (strcmp(resume, "none") == 0)
        return ND_OK;
    if (run->comm->rank == 0)
        status = choose(run, resume, path);
    ND_TRY(nd_comm_agree(run->comm, status));
    return run->comm->ops.broadcast(run->comm, path, ND_CHECKPOINT_PATH_MAX, 0);
}

/* Rank 0: whether a checkpoint on disk is newer than `step`. Hashes its files only if its name says
 * so, since the snapshot is already verified. */
static nd_status look_for_newer(nd_run *run, int64_t step, bool *newer)
{
    char directory[ND_CHECKPOINT_PATH_MAX], path[ND_CHECKPOINT_PATH_MAX];
    ND_CLEANUP(nd_checkpoint_steps_free) nd_checkpoint_steps steps = {0};
    int64_t found = -1;
    *newer = false;
    nd_checkpoint_directory(&run->config, directory, sizeof directory);
    ND_TRY(nd_checkpoint_steps_list(directory, "", &steps));
    if (steps.count == 0 || steps.list[steps.count - 1] <= step)
        return ND_OK;
    const nd_status status = nd_checkpoint_newest(directory, &run->log, path);
    const char *name = strrchr(path, '/');
    *newer =
        status == ND_OK && name && nd_checkpoint_name_parse(name + 1, "", &found) && found > step;
    if (status == ND_ECHECKPOINT) {
        nd_log_line(&run->log, "warning: %s", nd_error_get()->message);
        nd_error_clear();
        return ND_OK;
    }
    return status;
}

/* *done: the run was resumed from a snapshot. */
static nd_status resume_snapshot(nd_run *run, bool *done)
{
    ND_CLEANUP(nd_snapshot_found_free) nd_snapshot_found found = {0};
    bool newer = false, untouched = false;
    *done = false;
    ND_TRY(nd_snapshot_find(run, &found));
    nd_status status = ND_OK;
    if (found.any && run->comm->rank == 0)
        status = look_for_newer(run, found.c.step, &newer);
    status = nd_comm_agree(run->comm, status);
    ND_IF_OK(run->comm->ops.broadcast(run->comm, &newer, sizeof newer, 0));
    if (status == ND_OK && found.any && !newer) {
        status = nd_snapshot_restore(run, &found, &untouched);
        *done = status == ND_OK;
        if (*done)
            nd_log_line(&run->log, "resumed %s, a snapshot in memory, at step %lld",
                        found.c.directory, (long long)run->position.step);
    }
    if (untouched) {
        nd_log_line(&run->log, "warning: the snapshot cannot be used: %s", nd_error_get()->message);
        nd_error_clear();
        return ND_OK;
    }
    return status;
}

/* A snapshot may be lost, and then the run begins again where it began. */
static nd_status keep_base(nd_run *run)
{
    char path[ND_CHECKPOINT_PATH_MAX];
    ND_TRY(nd_run_base_read(run->config.logging.run_dir, path, sizeof path));
    return nd_resume_note_base(run, path);
}

nd_status nd_resume(nd_run *run, const char *resume)
{
    char checkpoint[ND_CHECKPOINT_PATH_MAX];
    bool done = false;
    if (run->saving.snapshots && strcmp(resume, "auto") == 0)
        ND_TRY(resume_snapshot(run, &done));
    if (done)
        return nd_comm_agree(run->comm, run->comm->rank == 0 ? keep_base(run) : ND_OK);
    ND_TRY(nd_resume_choose(run, resume, checkpoint));
    if (!checkpoint[0])
        return ND_OK;
    ND_TRY(nd_checkpoint_restore(run, checkpoint));
    ND_TRY(nd_comm_agree(run->comm,
                         run->comm->rank == 0 ? nd_resume_note_base(run, checkpoint) : ND_OK));
    ND_FAIL_IF(strcmp(resume, "auto") != 0 && run->position.step >= nd_run_last_step(run),
               ND_ECONFIG,
               "%s is of step %lld, and the run is to end after step %lld ([training] total_steps, "
               "[data] epochs): nothing is left to train",
               checkpoint, (long long)run->position.step, (long long)nd_run_last_step(run));
    nd_log_line(&run->log, "resumed %s at step %lld", checkpoint, (long long)run->position.step);
    return ND_OK;
}
