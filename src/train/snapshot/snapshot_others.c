/* Removes other runs' snapshots on this host that are certainly not needed; lists the rest. */
#include "core/base/directory.h"
#include "core/base/durable_file.h"
#include "train/run/run_lock.h"
#include "train/snapshot/snapshot_parts.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static double bytes_below(const char *path, int depth)
{
    struct stat info;
    ND_CLEANUP(nd_names_free) nd_names names = {0};
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
        if (nd_checkpoint_join(inner, path, names.list[i]) == ND_OK)
            bytes += bytes_below(inner, depth - 1);
    }
    return bytes;
}

static bool is_run_id(const char *name)
{
    return strlen(name) == ND_RUN_ID_SIZE - 1 && strspn(name, "0123456789abcdef") == strlen(name);
}

/* The configuration stored with a snapshot. */
static nd_status read_config(const char *place, int64_t step, nd_config *config)
{
    char directory[ND_CHECKPOINT_PATH_MAX], path[ND_CHECKPOINT_PATH_MAX];
    ND_TRY(nd_checkpoint_step_path(directory, place, "", step));
    ND_TRY(nd_checkpoint_join(path, directory, "config.ini"));
    nd_config_defaults(config);
    return nd_config_read_file(config, path);
}

/* Whether `directory` belongs to run `id` and has a complete checkpoint of `step` or later. */
static bool has_newer(const char *directory, const char *id, int64_t step)
{
    char mine[ND_RUN_ID_SIZE], path[ND_CHECKPOINT_PATH_MAX];
    ND_CLEANUP(nd_checkpoint_close) nd_checkpoint c = {0};
    return nd_run_id_read(directory, mine, NULL) == ND_OK && strcmp(mine, id) == 0 &&
           nd_checkpoint_search(directory, path) == ND_OK && path[0] &&
           nd_checkpoint_open(path, false, &c) == ND_OK && strcmp(c.identity.run_id, id) == 0 &&
           c.step >= step;
}

/* Locks a run's directory; NULL if a running or crashed process holds the lock. */
static nd_run_lock *acquire_lock(const char *directory)
{
    char path[ND_CHECKPOINT_PATH_MAX];
    nd_run_lock *lock = NULL;
    if (nd_checkpoint_join(path, directory, ND_RUN_LOCK_NAME) != ND_OK || access(path, F_OK) == 0 ||
        nd_run_lock_acquire(directory, &lock) != ND_OK)
        return NULL;
    return lock;
}

static void remove_all(const char *of_run, const char *place, const nd_checkpoint_steps *steps)
{
    char path[ND_CHECKPOINT_PATH_MAX];
    for (int i = 0; i < steps->count; i++)
        if (nd_checkpoint_step_path(path, place, "", steps->list[i]) == ND_OK)
            nd_directory_remove(path);
    if (rmdir(place) == 0)
        rmdir(of_run);
}

/* Removes the snapshots of run `id` on this host if nothing can be lost: this process holds the
 * lock of the run's directory, which has a checkpoint that is as new. Keeps them in doubt. */
static void remove_if_over(nd_run *run, const char *of_run, const char *id)
{
    nd_config config;
    char place[ND_CHECKPOINT_PATH_MAX];
    ND_CLEANUP(nd_checkpoint_steps_free) nd_checkpoint_steps steps = {0};
    if (nd_checkpoint_join(place, of_run, run->saving.snapshots->host) != ND_OK ||
        nd_checkpoint_steps_list(place, "", &steps) != ND_OK)
        return;
    nd_config_defaults(&config);
    const char *directory = config.logging.run_dir;
    nd_status status = ND_ECHECKPOINT; /* the newest may still lack its configuration */
    for (int i = steps.count - 1; status != ND_OK && i >= 0; i--)
        status = read_config(place, steps.list[i], &config);
    const int64_t newest = steps.count > 0 ? steps.list[steps.count - 1] : 0;
    nd_run_lock *lock =
        status == ND_OK && has_newer(directory, id, newest) ? acquire_lock(directory) : NULL;
    if (lock && has_newer(directory, id, newest)) {
        const double mib = bytes_below(of_run, 3) / (1024.0 * 1024.0);
        remove_all(of_run, place, &steps);
        nd_log_line(&run->log,
                    "snapshot removed those of run %s (%.1f MiB) from host %s: %s has a checkpoint "
                    "that is not older, and nobody runs there",
                    id, mib, run->saving.snapshots->host, directory);
    }
    nd_run_lock_release(lock);
}

bool nd_snapshot_is_copy(const nd_run *run, const char *directory)
{
    struct stat there, here;
    char id[ND_RUN_ID_SIZE];
    return stat(directory, &there) == 0 && stat(run->config.logging.run_dir, &here) == 0 &&
           (there.st_ino != here.st_ino || there.st_dev != here.st_dev) &&
           nd_run_id_read(directory, id, NULL) == ND_OK && strcmp(id, run->identity.run_id) == 0;
}

/* On leaders: the directory of the run that wrote the newest snapshot of this run id on this host,
 * or "" where it may be this run's. */
static void copied_from(const nd_run *run, nd_config_text directory)
{
    char place[ND_CHECKPOINT_PATH_MAX];
    ND_CLEANUP(nd_checkpoint_steps_free) nd_checkpoint_steps steps = {0};
    nd_config config;
    directory[0] = '\0';
    if (run->identity.run_id[0] && nd_snapshot_place(run, place) == ND_OK &&
        nd_checkpoint_steps_list(place, "", &steps) == ND_OK)
        for (int i = steps.count - 1; !directory[0] && i >= 0; i--)
            if (read_config(place, steps.list[i], &config) == ND_OK &&
                nd_snapshot_is_copy(run, config.logging.run_dir))
                strcpy(directory, config.logging.run_dir);
    nd_error_clear();
}

nd_status nd_snapshot_find_copy(nd_run *run)
{
    nd_comm *comm = run->comm;
    nd_snapshots *s = run->saving.snapshots;
    nd_config_text mine = "";
    ND_AUTOFREE nd_config_text *all = calloc((size_t)comm->size, sizeof *all);
    ND_TRY(
        nd_comm_agree(comm, ND_CHECK(all, ND_ENOMEM, "no memory for %d directories", comm->size)));
    if (nd_snapshot_leads(run))
        copied_from(run, mine);
    const nd_status status = comm->ops.allgather(comm, all, mine, sizeof mine);
    int rank = 0;
    while (rank < comm->size && !all[rank][0])
        rank++;
    s->copied = status == ND_OK && rank < comm->size;
    if (s->copied)
        nd_log_line(&run->log,
                    "warning: no snapshots, and none is resumed: those of run %s in %s on host %s "
                    "are of %s, which holds this run too; go on there, or remove that directory of "
                    "%s",
                    run->identity.run_id, s->root, s->hosts.names[rank], all[rank], s->root);
    return status;
}

/* Moves the ids of other runs with snapshots here to the front of *names; returns their number. */
static int list_others(const nd_run *run, nd_names *names)
{
    if (nd_directory_names(run->saving.snapshots->root, names) != ND_OK)
        return 0;
    int kept = 0;
    for (int i = 0; i < names->count; i++)
        if (is_run_id(names->list[i]) && strcmp(names->list[i], run->identity.run_id) != 0) {
            char *other = names->list[i];
            names->list[i] = names->list[kept];
            names->list[kept++] = other;
        }
    return kept;
}

void nd_snapshot_remove_others(nd_run *run)
{
    ND_CLEANUP(nd_names_free) nd_names names = {0};
    const int count = list_others(run, &names);
    for (int i = 0; i < count; i++) {
        char path[ND_CHECKPOINT_PATH_MAX];
        if (nd_checkpoint_join(path, run->saving.snapshots->root, names.list[i]) == ND_OK)
            remove_if_over(run, path, names.list[i]);
    }
    nd_error_clear();
}

void nd_snapshot_others(const nd_run *run, char *text, size_t size)
{
    ND_CLEANUP(nd_names_free) nd_names names = {0};
    size_t used = 0;
    text[0] = '\0';
    const int count = list_others(run, &names);
    for (int i = 0; i < count && used < size; i++) {
        char path[ND_CHECKPOINT_PATH_MAX];
        if (nd_checkpoint_join(path, run->saving.snapshots->root, names.list[i]) == ND_OK)
            used += (size_t)snprintf(text + used, size - used, "%s%s (%.1f MiB)", used ? ", " : "",
                                     names.list[i], bytes_below(path, 3) / (1024.0 * 1024.0));
    }
    nd_error_clear();
}
