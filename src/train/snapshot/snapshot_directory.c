/* Where snapshots lie, and what else lies there. */
#include "core/base/directory.h"
#include "core/base/durable_file.h"
#include "train/snapshot/snapshot_parts.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void nd_snapshot_root(const nd_config *config, char path[ND_CHECKPOINT_PATH_MAX])
{
    if (config->logging.snapshot_dir[0])
        snprintf(path, ND_CHECKPOINT_PATH_MAX, "%s", config->logging.snapshot_dir);
    else
        snprintf(path, ND_CHECKPOINT_PATH_MAX, "/dev/shm/nanochat_dist-%lu",
                 (unsigned long)getuid());
}

static nd_status run_path(const nd_run *run, char path[ND_CHECKPOINT_PATH_MAX])
{
    return nd_checkpoint_join(path, ND_CHECKPOINT_PATH_MAX, run->saving.snapshots->root,
                              run->identity.run_id);
}

nd_status nd_snapshot_place(const nd_run *run, char path[ND_CHECKPOINT_PATH_MAX])
{
    char of_run[ND_CHECKPOINT_PATH_MAX];
    ND_TRY(run_path(run, of_run));
    return nd_checkpoint_join(path, ND_CHECKPOINT_PATH_MAX, of_run, run->saving.snapshots->host);
}

nd_status nd_snapshot_step_path(const nd_run *run, int64_t step, char path[ND_CHECKPOINT_PATH_MAX])
{
    char place[ND_CHECKPOINT_PATH_MAX], name[ND_CHECKPOINT_NAME_MAX];
    nd_checkpoint_name(name, "", step);
    ND_TRY(nd_snapshot_place(run, place));
    return nd_checkpoint_join(path, ND_CHECKPOINT_PATH_MAX, place, name);
}

nd_status nd_snapshot_part_path(const nd_run *run, int64_t step, nd_snapshot_part part, int rank,
                                char path[ND_CHECKPOINT_PATH_MAX])
{
    char directory[ND_CHECKPOINT_PATH_MAX], name[32];
    snprintf(name, sizeof name, "%s_%04d.h5", part == ND_PART_COPY ? "copy" : "rank", rank);
    ND_TRY(nd_snapshot_step_path(run, step, directory));
    return nd_checkpoint_join(path, ND_CHECKPOINT_PATH_MAX, directory, name);
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
    nd_checkpoint_steps steps;
    char path[ND_CHECKPOINT_PATH_MAX], name[ND_CHECKPOINT_NAME_MAX];
    ND_TRY(nd_checkpoint_steps_list(place, "", &steps));
    nd_status status = ND_OK;
    for (int i = 0; status == ND_OK && i < steps.count; i++) {
        if (steps.list[i] == keep || steps.list[i] <= up_to)
            continue;
        nd_checkpoint_name(name, "", steps.list[i]);
        status = nd_checkpoint_join(path, sizeof path, place, name);
        if (status == ND_OK)
            status = nd_directory_remove(path);
    }
    free(steps.list);
    return status;
}

nd_status nd_snapshot_remove(const nd_run *run, int64_t keep, int64_t up_to)
{
    char place[ND_CHECKPOINT_PATH_MAX], of_run[ND_CHECKPOINT_PATH_MAX];
    if (!run->identity.run_id[0])
        return ND_OK;
    ND_TRY(run_path(run, of_run));
    ND_TRY(nd_snapshot_place(run, place));
    ND_TRY(remove_steps(place, keep, up_to));
    if (rmdir(place) == 0 && rmdir(of_run) == 0) /* only where nothing is left in them */
        rmdir(run->saving.snapshots->root);
    return ND_OK;
}

static double bytes_below(const char *path, int depth)
{
    struct stat info;
    nd_names names;
    double bytes = 0.0;
    if (lstat(path, &info) != 0)
        return 0.0;
    if (!S_ISDIR(info.st_mode) || depth == 0)
        return (double)info.st_size;
    if (nd_directory_names(path, &names) != ND_OK) {
        nd_error_clear();
        return 0.0;
    }
    for (int i = 0; i < names.count; i++) {
        char inner[ND_CHECKPOINT_PATH_MAX];
        if (nd_checkpoint_join(inner, sizeof inner, path, names.list[i]) == ND_OK)
            bytes += bytes_below(inner, depth - 1);
    }
    nd_names_free(&names);
    return bytes;
}

static bool is_run_id(const char *name)
{
    return strlen(name) == ND_RUN_ID_SIZE - 1 && strspn(name, "0123456789abcdef") == strlen(name);
}

void nd_snapshot_others(const nd_run *run, char *text, size_t size)
{
    const nd_snapshots *s = run->saving.snapshots;
    nd_names names;
    size_t used = 0;
    text[0] = '\0';
    if (nd_directory_names(s->root, &names) != ND_OK) {
        nd_error_clear();
        return;
    }
    for (int i = 0; i < names.count && used < size; i++) {
        char path[ND_CHECKPOINT_PATH_MAX];
        if (is_run_id(names.list[i]) && strcmp(names.list[i], run->identity.run_id) != 0 &&
            nd_checkpoint_join(path, sizeof path, s->root, names.list[i]) == ND_OK)
            used += (size_t)snprintf(text + used, size - used, "%s%s (%.1f MiB)", used ? ", " : "",
                                     names.list[i], bytes_below(path, 3) / (1024.0 * 1024.0));
    }
    nd_names_free(&names);
}
