#include "train/run_directory.h"

#include "core/base/durable_file.h"
#include "train/checkpoint/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PREVIOUS_MAX = 999 };

bool nd_run_directory_on_terminal(const nd_comm *comm)
{
    char path[64];
    if (!isatty(STDOUT_FILENO))
        return false;
    if (strcmp(comm->ops.name, "solo") == 0)
        return true;
    snprintf(path, sizeof path, "/proc/%ld/fd/1", (long)getppid());
    const int launcher = open(path, O_WRONLY | O_NOCTTY | O_CLOEXEC);
    const bool terminal = launcher >= 0 && isatty(launcher);
    if (launcher >= 0)
        close(launcher);
    return terminal;
}

static bool exists(const char *path)
{
    struct stat info;
    return lstat(path, &info) == 0;
}

static nd_status move(const char *from, const char *to)
{
    if (exists(from) && rename(from, to) != 0)
        return ND_FAIL(ND_EIO, "cannot move %s to %s: %s", from, to, strerror(errno));
    return ND_OK;
}

/* What a run leaves, beside its checkpoints. */
static const char *const leavings[] = {"metrics.jsonl", "training.log", "config.ini",
                                       "tensorboard"};
enum { LEAVINGS = sizeof leavings / sizeof leavings[0] };

static int is_of_checkpoints(const struct dirent *entry)
{
    return strncmp(entry->d_name, "step_", 5) == 0 || strcmp(entry->d_name, "latest") == 0 ||
           strncmp(entry->d_name, "superseded_step_", 16) == 0;
}

/* Moves the checkpoints of a directory, and nothing else that may lie in it, into `to` when `to` is
 * not NULL. Returns how many there are. */
static nd_status move_checkpoints(const char *from, const char *to, int *count)
{
    struct dirent **entries;
    nd_status status = ND_OK;
    *count = scandir(from, &entries, is_of_checkpoints, alphasort);
    if (*count < 0) {
        *count = 0;
        return ND_OK;
    }
    if (*count > 0 && to)
        status = nd_directory_create(to);
    for (int i = 0; i < *count; i++) {
        char here[ND_CHECKPOINT_PATH_MAX + 256], there[ND_CHECKPOINT_PATH_MAX + 256];
        snprintf(here, sizeof here, "%s/%s", from, entries[i]->d_name);
        snprintf(there, sizeof there, "%s/%s", to ? to : from, entries[i]->d_name);
        if (to && status == ND_OK)
            status = move(here, there);
        free(entries[i]);
    }
    free(entries);
    return status;
}

static nd_status move_previous_run(nd_run *run, char *aside, size_t size)
{
    char path[ND_CHECKPOINT_PATH_MAX + 64], to[ND_CHECKPOINT_PATH_MAX + 64];
    char checkpoints[ND_CHECKPOINT_PATH_MAX];
    const char *directory = run->config.logging.run_dir;
    nd_checkpoint_directory(&run->config, checkpoints, sizeof checkpoints);
    int count;
    ND_TRY(move_checkpoints(checkpoints, NULL, &count));
    bool found = count > 0;
    for (int i = 0; i < LEAVINGS; i++) {
        snprintf(path, sizeof path, "%s/%s", directory, leavings[i]);
        found |= exists(path);
    }
    aside[0] = '\0';
    if (!found)
        return ND_OK;
    int number = 1;
    do
        snprintf(aside, size, "%s/previous_%03d", directory, number);
    while (exists(aside) && ++number <= PREVIOUS_MAX);
    ND_TRY(nd_directory_create(aside));
    for (int i = 0; i < LEAVINGS; i++) {
        snprintf(path, sizeof path, "%s/%s", directory, leavings[i]);
        snprintf(to, sizeof to, "%s/%s", aside, leavings[i]);
        ND_TRY(move(path, to));
    }
    /* Checkpoints elsewhere stay on their file system. */
    if (run->config.logging.checkpoint_dir[0])
        snprintf(to, sizeof to, "%s/previous_%03d", checkpoints, number);
    else
        snprintf(to, sizeof to, "%s/checkpoints", aside);
    return move_checkpoints(checkpoints, to, &count);
}

nd_status nd_run_directory_open(nd_run *run, bool fresh)
{
    char path[ND_CONFIG_TEXT_MAX + 32], aside[ND_CONFIG_TEXT_MAX + 32] = "";
    char checkpoints[ND_CHECKPOINT_PATH_MAX];
    run->log.terminal = stdout;
    run->log.animated = nd_run_directory_on_terminal(run->comm);
    ND_TRY(nd_directory_create(run->config.logging.run_dir));
    if (fresh)
        ND_TRY(move_previous_run(run, aside, sizeof aside));
    nd_checkpoint_directory(&run->config, checkpoints, sizeof checkpoints);
    ND_TRY(
        nd_directory_create(checkpoints)); /* now, and not when hours of training are to be saved */
    snprintf(path, sizeof path, "%s/training.log", run->config.logging.run_dir);
    run->log.file = fopen(path, "a");
    if (!run->log.file)
        return ND_FAIL(ND_EIO, "cannot write %s: %s", path, strerror(errno));
    if (aside[0])
        nd_log_line(&run->log, "moved   what an earlier run left here to %s", aside);
    return ND_OK;
}

nd_status nd_run_directory_save_config(const nd_run *run)
{
    char path[ND_CONFIG_TEXT_MAX + 32];
    snprintf(path, sizeof path, "%s/config.ini", run->config.logging.run_dir);
    FILE *file = fopen(path, "w");
    if (!file)
        return ND_FAIL(ND_EIO, "cannot write %s: %s", path, strerror(errno));
    nd_identity_write_comments(&run->identity, file);
    const nd_status status = nd_config_write(&run->config, file);
    if (fclose(file) != 0 && status == ND_OK)
        return ND_FAIL(ND_EIO, "cannot write %s: %s", path, strerror(errno));
    return status;
}
