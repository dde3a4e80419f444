#include "train/run/run_directory.h"

#include "core/base/close.h"
#include "core/base/directory.h"
#include "core/base/durable_file.h"
#include "dist/launcher.h"
#include "train/checkpoint/checkpoint.h"
#include "train/log/tensorboard.h"
#include "train/run/run_lock.h"
#include "train/run/set_aside.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Whether rank 0's standard output ends at a terminal: under mpirun ranks write to a
 * pseudo-terminal even when mpirun itself writes to a file. */
static bool on_terminal(const nd_comm *comm)
{
    char path[64];
    if (!isatty(STDOUT_FILENO))
        return false;
    if (strcmp(comm->ops.name, "solo") == 0)
        return true;
    snprintf(path, sizeof path, "/proc/%ld/fd/1", (long)nd_launcher_process());
    const int launcher = open(path, O_WRONLY | O_NOCTTY | O_CLOEXEC);
    const bool terminal = launcher >= 0 && isatty(launcher);
    if (launcher >= 0)
        close(launcher);
    return terminal;
}

/* Created now rather than when hours of training are to be saved. */
static nd_status make_usable(const char *path)
{
    ND_TRY(nd_directory_create(path));
    return ND_CHECK(access(path, W_OK | X_OK) == 0, ND_EIO, "cannot write into %s: %s", path,
                    strerror(errno));
}

/* Other programs begin their lines with times, too; a start's second line names this one. */
static nd_status check_log(const char *run_dir)
{
    char path[ND_CHECKPOINT_PATH_MAX], begin[1 << 14];
    ND_TRY(nd_checkpoint_join(path, run_dir, "training.log"));
    ND_TRY(nd_durable_check(path, "20", "a log with times"));
    ND_CLEANUP(nd_close_file) FILE *file = fopen(path, "re");
    if (!file)
        return ND_CHECK(errno == ENOENT, ND_EIO, "%s: cannot read this file: %s", path,
                        strerror(errno));
    const size_t size = fread(begin, 1, sizeof begin - 1, file);
    begin[size] = '\0';
    return ND_CHECK(
        size == 0 || strstr(begin, " program nanochat_dist "), ND_ECONFIG,
        "%s: this file is not a log of this program and is not replaced by one; move it "
        "elsewhere, or give another --run-dir",
        path);
}

static nd_status check_events(const char *run_dir)
{
    char path[ND_CHECKPOINT_PATH_MAX];
    bool exists, directory;
    ND_CLEANUP(nd_names_free) nd_names names = {0};
    ND_TRY(nd_checkpoint_join(path, run_dir, "tensorboard"));
    ND_TRY(nd_path_exists(path, &exists));
    ND_TRY(nd_path_is_directory(path, &directory));
    ND_FAIL_IF(exists && !directory, ND_ECONFIG,
               "%s: the directory of event files goes here; move this file elsewhere, or give "
               "another --run-dir",
               path);
    ND_TRY(nd_directory_names(path, &names));
    for (int i = 0; i < names.count; i++)
        ND_FAIL_IF(strncmp(names.list[i], ND_EVENTS_PREFIX, strlen(ND_EVENTS_PREFIX)) != 0,
                   ND_ECONFIG,
                   "%s/%s: event files go here, and this is not one; move it elsewhere, or give "
                   "another --run-dir",
                   path, names.list[i]);
    return ND_OK;
}

/* Files that the run's replace, or that are set aside, must be the program's own: config.ini says
 * so of all; without it each has to look like one. */
static nd_status check_own(const char *run_dir)
{
    static const char *const own[][3] = {{"metrics.jsonl", "{\"step\":", "a file of metrics"},
                                         {"snapshot_hosts", "of ", "a list of hosts"}};
    char id[ND_RUN_ID_SIZE], path[ND_CHECKPOINT_PATH_MAX];
    bool foreign;
    ND_TRY(nd_run_id_read(run_dir, id, &foreign));
    ND_FAIL_IF(foreign, ND_ECONFIG,
               "%s/config.ini: this is where the run's configuration goes, and the "
               "file there names no run (the line `; run_id = ...`), so it is not "
               "this program's; rename it, or give another --run-dir",
               run_dir);
    for (size_t i = 0; !id[0] && i < sizeof own / sizeof own[0]; i++) {
        ND_TRY(nd_checkpoint_join(path, run_dir, own[i][0]));
        ND_TRY(nd_durable_check(path, own[i][1], own[i][2]));
    }
    if (!id[0])
        ND_TRY(check_log(run_dir));
    return id[0] ? ND_OK : check_events(run_dir);
}

nd_status nd_run_directory_check(nd_run *run)
{
    char checkpoints[ND_CHECKPOINT_PATH_MAX];
    nd_set_aside places = {.run = run->config.logging.run_dir, .checkpoints = checkpoints};
    run->log.terminal = stdout;
    run->log.animated = on_terminal(run->comm);
    run->log.file = open_memstream(&run->start.log, &run->start.log_bytes);
    nd_checkpoint_directory(&run->config, checkpoints, sizeof checkpoints);
    ND_TRY(check_own(places.run));
    ND_TRY(make_usable(places.run));
    ND_TRY(make_usable(checkpoints));
    ND_TRY(nd_checkpoint_recover(checkpoints));
    return nd_set_aside_recover(&places);
}

static void log_set_aside(nd_run *run, const nd_set_aside *places)
{
    char elsewhere[ND_CHECKPOINT_PATH_MAX + 64] = "";
    if (places->apart)
        snprintf(elsewhere, sizeof elsewhere, " --checkpoint-dir %s/previous_%03d",
                 places->checkpoints, places->number);
    nd_log_line(&run->log,
                "moved   what an earlier run left here to %s/previous_%03d; to continue that run: "
                "--run-dir %s/previous_%03d%s --resume auto",
                places->run, places->number, places->run, places->number, elsewhere);
}

static nd_status make_room(nd_run *run, bool fresh)
{
    char checkpoints[ND_CHECKPOINT_PATH_MAX];
    nd_set_aside places = {.run = run->config.logging.run_dir,
                           .checkpoints = checkpoints,
                           .apart = run->config.logging.checkpoint_dir[0] != '\0'};
    nd_checkpoint_directory(&run->config, checkpoints, sizeof checkpoints);
    if (!fresh)
        return nd_checkpoint_supersede(checkpoints, run->restored.step, &run->log);
    ND_TRY(nd_set_aside_run(&places));
    if (places.number > 0)
        log_set_aside(run, &places);
    return ND_OK;
}

/* Copies the buffered log to the file. */
static void open_log(nd_run *run)
{
    char path[ND_CONFIG_TEXT_MAX + 32];
    snprintf(path, sizeof path, "%s/training.log", run->config.logging.run_dir);
    if (run->log.file)
        fclose(run->log.file);
    run->log.file = fopen(path, "ae");
    if (!run->log.file)
        nd_log_line(&run->log, "warning: cannot write %s: %s; training continues without it", path,
                    strerror(errno));
    else if (run->start.log)
        nd_log_replay(&run->log, run->start.log);
    free(run->start.log);
    run->start.log = NULL;
}

void nd_run_directory_make_absolute(nd_config *config, const char *key, const char *directory)
{
    ND_AUTOFREE char *real = directory[0] && directory[0] != '/' ? realpath(directory, NULL) : NULL;
    if (real && nd_config_set_key(config, "logging", key, real, "") != ND_OK)
        nd_error_clear();
}

static nd_status save_config(const nd_run *run)
{
    nd_config config = run->config;
    char path[ND_CONFIG_TEXT_MAX + 32];
    ND_AUTOFREE char *text = NULL;
    size_t size = 0;
    snprintf(path, sizeof path, "%s/config.ini", run->config.logging.run_dir);
    FILE *memory = open_memstream(&text, &size);
    ND_FAIL_IF(!memory, ND_ENOMEM, "no memory for the configuration's text");
    nd_run_directory_make_absolute(&config, "checkpoint_dir", config.logging.checkpoint_dir);
    nd_identity_write_comments(&run->identity, memory);
    const char *job = getenv("SLURM_JOB_ID");
    if (job)
        fprintf(memory, "; slurm_job = %.*s\n\n", (int)strspn(job, "0123456789"), job);
    if (run->restored.base)
        nd_run_base_write(run->restored.base, memory);
    const nd_status status = nd_config_write(&config, memory);
    fclose(memory);
    ND_TRY(status);
    return nd_durable_write(path, text, size);
}

nd_status nd_run_directory_open(nd_run *run, bool fresh)
{
    char checkpoints[ND_CHECKPOINT_PATH_MAX];
    ND_TRY(make_room(run, fresh));
    open_log(run);
    nd_checkpoint_directory(&run->config, checkpoints, sizeof checkpoints);
    if (!nd_directory_can_sync(checkpoints))
        nd_log_line(&run->log,
                    "warning: the file system of %s cannot fsync directories: a crash of the "
                    "machine may lose the newest checkpoints",
                    checkpoints);
    if (save_config(run) != ND_OK) {
        nd_log_line(&run->log, "warning: %s; training continues without it",
                    nd_error_get()->message);
        nd_error_clear();
    }
    return ND_OK;
}

nd_status nd_run_directory_confirm(const nd_run *run)
{
    return run->saving.locks
               ? nd_run_locks_confirm(run->saving.locks, &run->config, run->identity.run_id)
               : ND_OK;
}

void nd_run_directory_close(nd_run *run)
{
    free(run->restored.base);
    run->restored.base = NULL;
    if (run->log.file)
        fclose(run->log.file);
    run->log.file = NULL;
    free(run->start.log);
    run->start.log = NULL;
}
