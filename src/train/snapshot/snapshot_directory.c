/* Directories of snapshots. */
#include "core/base/durable_file.h"
#include "train/fault_points.h"
#include "train/snapshot/snapshot_parts.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

nd_status nd_snapshot_root(const nd_config *config, char path[ND_CHECKPOINT_PATH_MAX])
{
    const char *named = config->logging.snapshot_dir;
    char here[ND_CHECKPOINT_PATH_MAX];
    if (named[0] && named[0] != '/' && getcwd(here, sizeof here))
        return nd_checkpoint_join(path, here, named);
    if (named[0])
        snprintf(path, ND_CHECKPOINT_PATH_MAX, "%s", named);
    else
        snprintf(path, ND_CHECKPOINT_PATH_MAX, "/dev/shm/nanochat_dist-%lu",
                 (unsigned long)getuid());
    return ND_OK;
}

bool nd_snapshot_in_memory(const char *path)
{
    char above[ND_CHECKPOINT_PATH_MAX]; /* the nearest directory that is there */
    struct statfs info;
    snprintf(above, sizeof above, "%s", path);
    while (statfs(above[0] ? above : ".", &info) != 0) {
        char *slash = strrchr(above, '/');
        if (errno != ENOENT || !above[0])
            return true;
        if (slash)
            slash[slash == above] = '\0';
        else
            above[0] = '\0';
    }
    return (uint32_t)info.f_type == TMPFS_MAGIC || (uint32_t)info.f_type == RAMFS_MAGIC;
}

static nd_status run_path(const nd_run *run, char path[ND_CHECKPOINT_PATH_MAX])
{
    return nd_checkpoint_join(path, run->saving.snapshots->root, run->identity.run_id);
}

nd_status nd_snapshot_place(const nd_run *run, char path[ND_CHECKPOINT_PATH_MAX])
{
    char of_run[ND_CHECKPOINT_PATH_MAX];
    ND_TRY(run_path(run, of_run));
    return nd_checkpoint_join(path, of_run, run->saving.snapshots->host);
}

nd_status nd_snapshot_step_path(const nd_run *run, int64_t step, char path[ND_CHECKPOINT_PATH_MAX])
{
    char place[ND_CHECKPOINT_PATH_MAX];
    ND_TRY(nd_snapshot_place(run, place));
    return nd_checkpoint_step_path(path, place, "", step);
}

nd_status nd_snapshot_part_path(const nd_run *run, int64_t step, nd_snapshot_part part, int rank,
                                char path[ND_CHECKPOINT_PATH_MAX])
{
    char directory[ND_CHECKPOINT_PATH_MAX], name[32];
    snprintf(name, sizeof name, "%s_%04d.h5", part == ND_PART_COPY ? "copy" : "rank", rank);
    ND_TRY(nd_snapshot_step_path(run, step, directory));
    return nd_checkpoint_join(path, directory, name);
}

int nd_snapshot_rank_of(const char *file)
{
    int rank, end = 0;
    return sscanf(file, "rank_%d.h5%n", &rank, &end) == 1 && end > 0 && !file[end] && rank >= 0
               ? rank
               : -1;
}

bool nd_snapshot_leads(const nd_run *run)
{
    return run->comm->rank == run->saving.snapshots->leader;
}

static nd_status remove_steps(const char *place, int64_t keep, int64_t up_to)
{
    ND_CLEANUP(nd_checkpoint_steps_free) nd_checkpoint_steps steps = {0};
    char path[ND_CHECKPOINT_PATH_MAX];
    ND_TRY(nd_checkpoint_steps_list(place, "", &steps));
    for (int i = 0; i < steps.count; i++) {
        if (steps.list[i] == keep || steps.list[i] <= up_to)
            continue;
        ND_TRY(nd_checkpoint_step_path(path, place, "", steps.list[i]));
        ND_TRY(nd_directory_remove(path));
    }
    return ND_OK;
}

nd_status nd_snapshot_remove(const nd_run *run, int64_t keep, int64_t up_to)
{
    char place[ND_CHECKPOINT_PATH_MAX], of_run[ND_CHECKPOINT_PATH_MAX];
    if (!run->identity.run_id[0] || run->saving.snapshots->copied)
        return ND_OK;
    ND_TRY(run_path(run, of_run));
    ND_TRY(nd_snapshot_place(run, place));
    ND_TRY(remove_steps(place, keep, up_to));
    if (rmdir(place) == 0 && rmdir(of_run) == 0) /* only if they are empty */
        rmdir(run->saving.snapshots->root);
    return ND_OK;
}

nd_status nd_snapshot_reuse(const nd_run *run)
{
    const nd_snapshots *s = run->saving.snapshots;
    char from[ND_CHECKPOINT_PATH_MAX], to[ND_CHECKPOINT_PATH_MAX], manifest[ND_CHECKPOINT_PATH_MAX];
    if (s->spare < 0)
        return ND_OK;
    ND_TRY(nd_snapshot_step_path(run, s->spare, from));
    ND_TRY(nd_snapshot_step_path(run, s->step, to));
    ND_TRY(nd_checkpoint_join(manifest, from, "manifest.json"));
    ND_FAIL_IF(unlink(manifest) != 0 && errno != ENOENT, ND_ECHECKPOINT, "cannot remove %s: %s",
               manifest, strerror(errno));
    nd_fault_point_of(run->comm->rank, s->step, "snapshot_reuse");
    ND_FAIL_IF(rename(from, to) != 0 && errno != ENOENT, ND_ECHECKPOINT,
               "cannot rename %s to %s: %s", from, to, strerror(errno));
    return ND_OK;
}
