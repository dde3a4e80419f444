#include "train/run/run_lock.h"

#include "core/base/clock.h"
#include "core/base/close.h"
#include "core/base/directory.h"
#include "core/base/durable_file.h"
#include "train/checkpoint/checkpoint.h"
#include "train/fault_points.h"
#include "train/run/identity.h"
#include "train/run/lock_owner.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Time to wait for an owner that is about to end, or about to write its record. */
#define PATIENCE_SECONDS 3.0

/* Prefix of files that announce the removal of a stale lock. */
#define ANNOUNCED ND_RUN_LOCK_NAME ".stale."

struct nd_run_lock {
    char directory[ND_CHECKPOINT_PATH_MAX], path[ND_CHECKPOINT_PATH_MAX + 64];
    int file;
    nd_lock_owner self;
};

typedef enum outcome { TAKEN, TRY_AGAIN, FAILED } outcome;

static nd_file_lock lock_file(int file)
{
    if (flock(file, LOCK_EX | LOCK_NB) == 0)
        return ND_FILE_LOCK_FREE;
    return errno == EWOULDBLOCK ? ND_FILE_LOCK_HELD : ND_FILE_LOCK_NONE;
}

/* Whether the mount options restrict file locks to this machine. */
static bool locks_are_local(const char *options)
{
    static const char *const words[] = {"nolock", "local_lock=all", "local_lock=flock",
                                        "localflock"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        const char *at = strstr(options, words[i]);
        if (at && strchr(", \n", at[strlen(words[i])]))
            return true;
    }
    return false;
}

/* Whether a file lock excludes processes on other machines: the file system is local or known to
 * lock globally. Reads the file's line in mountinfo: "36 35 98:0 / /mnt rw - ext4 ...". */
static bool locks_reach_all(int file)
{
    static const char *const known[] = {"ext2",  "ext3", "ext4", "xfs",  "btrfs",  "zfs",
                                        "tmpfs", "f2fs", "nfs",  "nfs4", "lustre", "ceph"};
    ND_AUTOFREE char *line = NULL;
    char device[32], type[32];
    size_t scratch = 0;
    struct stat info;
    bool reach = false;
    ND_CLEANUP(nd_close_file) FILE *mounts = fopen("/proc/self/mountinfo", "re");
    if (!mounts || fstat(file, &info) != 0)
        return false;
    snprintf(device, sizeof device, " %u:%u ", major(info.st_dev), minor(info.st_dev));
    while (getline(&line, &scratch, mounts) > 0) {
        const char *rest = strstr(line, " - ");
        if (!strstr(line, device) || !rest || sscanf(rest, " - %31s", type) != 1)
            continue;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            reach |= strcmp(type, known[i]) == 0 && !locks_are_local(rest);
        break;
    }
    return reach;
}

static bool read_record(int file, nd_lock_owner *owner)
{
    char text[ND_LOCK_OWNER_TEXT_MAX];
    const ssize_t got = pread(file, text, sizeof text, 0);
    return got > 0 && nd_lock_owner_parse(text, (size_t)got, owner);
}

static int64_t inode_of(int file)
{
    struct stat info;
    return fstat(file, &info) == 0 ? (int64_t)info.st_ino : 0;
}

static nd_status write_record(nd_run_lock *l)
{
    char text[ND_LOCK_OWNER_TEXT_MAX];
    l->self.inode = inode_of(l->file);
    const int length = nd_lock_owner_format(&l->self, text, sizeof text - 1);
    ND_FAIL_IF(length < 0 || ftruncate(l->file, 0) != 0 ||
                   pwrite(l->file, text, (size_t)length, 0) != length,
               ND_EIO, "cannot write %s: %s", l->path, strerror(length < 0 ? ENOMEM : errno));
    fsync(l->file); /* for other machines; not all file systems support it */
    return ND_OK;
}

static nd_status refuse(const nd_run_lock *l, const nd_lock_owner *owner, nd_owner_state state)
{
    char who[512];
    nd_lock_owner_describe(owner, who, sizeof who);
    ND_FAIL_IF(state == ND_OWNER_ALIVE, ND_ECONFIG,
               "%s is in use by %s; wait until it has ended, or give this run another directory",
               l->directory, who);
    return ND_FAIL(
        ND_ECONFIG,
        "%s is in use by %s, and whether that still runs cannot be seen from host %s; "
        "make sure that it has ended (`ps -p %lld` there), then remove %s and start again",
        l->directory, who, l->self.host, (long long)owner->pid, l->path);
}

/* For a lock that this process may not open: another user's. */
static nd_status refuse_closed(const nd_run_lock *l, int reason)
{
    nd_lock_owner owner;
    char who[512] = "a process that cannot be seen";
    const int file = open(l->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (file >= 0 && read_record(file, &owner))
        nd_lock_owner_describe(&owner, who, sizeof who);
    if (file >= 0)
        close(file);
    return ND_FAIL(ND_EIO,
                   "cannot open %s: %s; it names %s; when that has ended, its user may remove "
                   "the file, or give this run another directory",
                   l->path, strerror(reason), who);
}

static bool same_owner(const nd_lock_owner *a, const nd_lock_owner *b)
{
    return a->pid == b->pid && a->process_start == b->process_start &&
           strcmp(a->boot, b->boot) == 0;
}

/* Whether another live process has announced the removal of a lock. Removes stale announcements. */
static bool others_announce(const nd_run_lock *l, const char *mine)
{
    bool others = false;
    ND_CLEANUP(nd_close_directory) DIR *list = opendir(l->directory);
    for (const struct dirent *entry; list && (entry = readdir(list));) {
        char path[ND_CHECKPOINT_PATH_MAX + NAME_MAX + 2];
        nd_lock_owner owner;
        if (strncmp(entry->d_name, ANNOUNCED, strlen(ANNOUNCED)) != 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", l->directory, entry->d_name);
        ND_CLEANUP(nd_close_descriptor)
        int file = strcmp(path, mine) != 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        if (file < 0)
            continue;
        if (read_record(file, &owner) &&
            nd_lock_owner_state(&owner, &l->self, ND_FILE_LOCK_NONE, false) == ND_OWNER_GONE)
            unlink(path);
        else
            others = true;
    }
    return others || !list;
}

/* Removes the record of a dead owner where there are no file locks. Two processes must not do so at
 * once, or one could remove the other's new record: each first announces itself in a file and
 * continues only if it sees no other. Of two at the same time at least one sees the other. */
static void remove_stale(const nd_run_lock *l, const nd_lock_owner *gone)
{
    char mine[ND_CHECKPOINT_PATH_MAX + 160];
    nd_run_lock announcement = *l;
    nd_lock_owner current;
    snprintf(mine, sizeof mine, "%s/" ANNOUNCED "%.40s.%lld.%lld", l->directory, l->self.host,
             (long long)l->self.pid, (long long)l->self.pid_namespace);
    snprintf(announcement.path, sizeof announcement.path, "%s/" ND_RUN_LOCK_NAME ".%lld.%lld.new",
             l->directory, (long long)l->self.pid, (long long)l->self.pid_namespace);
    announcement.file = open(announcement.path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    const bool announced = announcement.file >= 0 && write_record(&announcement) == ND_OK &&
                           rename(announcement.path, mine) == 0;
    if (announcement.file >= 0)
        close(announcement.file);
    if (!announced) {
        unlink(announcement.path);
        return;
    }
    ND_CLEANUP(nd_close_descriptor)
    int file = others_announce(l, mine) ? -1 : open(l->path, O_RDONLY | O_CLOEXEC);
    if (file >= 0 && read_record(file, &current) && same_owner(&current, gone))
        unlink(l->path);
    unlink(mine);
}

/* The file exists, and has or had an owner. */
static outcome contend(nd_run_lock *l, bool patient, nd_status *status)
{
    nd_lock_owner owner = {.host = "unknown", .started = "at an unknown time"};
    const nd_file_lock lock = lock_file(l->file);
    const bool whole = read_record(l->file, &owner);
    if (!nd_path_is_open_file(l->path, l->file))
        return TRY_AGAIN;
    if (!whole && lock != ND_FILE_LOCK_HELD && patient)
        return TRY_AGAIN; /* just created: its creator is about to lock it and write the record */
    l->self.inode = inode_of(l->file);
    nd_owner_state state = nd_lock_owner_state(&owner, &l->self, lock, locks_reach_all(l->file));
    if (!whole && lock == ND_FILE_LOCK_FREE)
        state = ND_OWNER_GONE;
    if (state != ND_OWNER_GONE) {
        if (patient && state == ND_OWNER_ALIVE)
            return TRY_AGAIN;
        *status = refuse(l, &owner, state);
        return FAILED;
    }
    if (lock == ND_FILE_LOCK_NONE) {
        remove_stale(l, &owner);
        return TRY_AGAIN;
    }
    l->self.locked = true;
    *status = write_record(l);
    return *status == ND_OK ? TAKEN : FAILED;
}

/* This process created the file. Another that inspects it may hold its lock for a moment. */
static outcome claim(nd_run_lock *l, double deadline, nd_status *status)
{
    nd_file_lock lock;
    while ((lock = lock_file(l->file)) == ND_FILE_LOCK_HELD && nd_seconds() < deadline)
        usleep(10000);
    if (lock == ND_FILE_LOCK_HELD || !nd_path_is_open_file(l->path, l->file))
        return TRY_AGAIN;
    l->self.locked = lock == ND_FILE_LOCK_FREE;
    *status = write_record(l);
    if (*status != ND_OK)
        unlink(l->path);
    return *status == ND_OK ? TAKEN : FAILED;
}

static nd_status acquire(nd_run_lock *l)
{
    const double deadline = nd_seconds() + PATIENCE_SECONDS;
    for (int64_t attempt = 0;; attempt++) {
        nd_status status = ND_OK;
        outcome result = TRY_AGAIN;
        const bool patient = nd_seconds() < deadline;
        l->file = open(l->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (l->file >= 0) {
            result = claim(l, deadline, &status);
        } else if (errno == EEXIST) {
            l->file = open(l->path, O_RDWR | O_CLOEXEC);
            if (l->file >= 0)
                result = contend(l, patient, &status);
            else if (errno != ENOENT)
                return refuse_closed(l, errno);
        } else {
            return ND_FAIL(ND_EIO, "cannot write %s: %s", l->path, strerror(errno));
        }
        if (result == TAKEN)
            return ND_OK;
        if (l->file >= 0)
            close(l->file);
        l->file = -1;
        if (result == FAILED)
            return status;
        ND_FAIL_IF(nd_seconds() > deadline + PATIENCE_SECONDS, ND_EIO,
                   "cannot lock %s: it keeps changing, or is not a regular file", l->path);
        usleep((useconds_t)(10000 + (l->self.pid * 7919 + attempt * 104729) % 20000));
    }
}

nd_status nd_run_lock_acquire(const char *directory, nd_run_lock **lock)
{
    *lock = NULL;
    ND_TRY(nd_directory_create(directory));
    nd_run_lock *l = calloc(1, sizeof *l);
    ND_FAIL_IF(!l, ND_ENOMEM, "no memory for a lock");
    nd_lock_owner_self(&l->self);
    snprintf(l->directory, sizeof l->directory, "%s", directory);
    snprintf(l->path, sizeof l->path, "%s/" ND_RUN_LOCK_NAME, l->directory);
    ND_RETURN_MADE(acquire(l), l, free, lock);
}

/* Removes the file before unlocking it, so that waiting processes see that it is gone. */
static void unlock(nd_run_lock *l)
{
    if (nd_path_is_open_file(l->path, l->file))
        unlink(l->path);
    if (l->file >= 0)
        close(l->file);
    l->file = -1;
}

void nd_run_lock_release(nd_run_lock *l)
{
    if (l)
        unlock(l);
    free(l);
}

nd_status nd_run_locks_acquire(const nd_config *config, nd_run_locks *locks)
{
    char checkpoints[ND_CHECKPOINT_PATH_MAX];
    *locks = (nd_run_locks){0};
    nd_checkpoint_directory(config, checkpoints, sizeof checkpoints);
    ND_TRY(nd_run_lock_acquire(config->logging.run_dir, &locks->run));
    nd_fault_point_of(0, 0, "lock");
    if (nd_path_same(config->logging.run_dir, checkpoints))
        return ND_OK;
    const nd_status status = nd_run_lock_acquire(checkpoints, &locks->checkpoints);
    nd_fault_point_of(0, 0, "locked");
    if (status != ND_OK)
        nd_run_locks_release(locks);
    return status;
}

/* Whoever renamed the directory may have given its name to another run. */
static nd_status refuse_renamed(const nd_run_lock *l)
{
    char link[64], now[ND_CHECKPOINT_PATH_MAX] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", l->file);
    if (readlink(link, now, sizeof now - 1) < 0)
        strcpy(now, "elsewhere");
    return ND_FAIL(
        ND_ECHECKPOINT,
        "%s was renamed while this run writes there: its lock is %s now; rename it back, "
        "for nothing is saved under the old name meanwhile",
        l->directory, now);
}

static nd_status check_owner(const nd_config *config, const char *run_id)
{
    char id[ND_RUN_ID_SIZE];
    ND_TRY(nd_run_id_read(config->logging.run_dir, id, NULL));
    return ND_CHECK(!id[0] || strcmp(id, run_id) == 0, ND_ECHECKPOINT,
                    "%s was removed or renamed while this run, %s, writes there, and is of run %s "
                    "now",
                    config->logging.run_dir, run_id, id);
}

static nd_status confirm(nd_run_lock *l, const nd_config *config, const char *run_id)
{
    struct stat info;
    if (!l || nd_path_is_open_file(l->path, l->file))
        return ND_OK;
    if (fstat(l->file, &info) == 0 && info.st_nlink > 0)
        return refuse_renamed(l);
    unlock(l);
    ND_TRY(nd_directory_create(l->directory));
    ND_TRY(acquire(l));
    const nd_status status = check_owner(config, run_id);
    if (status != ND_OK)
        unlock(l);
    return status;
}

nd_status nd_run_locks_confirm(nd_run_locks *locks, const nd_config *config, const char *run_id)
{
    ND_TRY(confirm(locks->run, config, run_id));
    return confirm(locks->checkpoints, config, run_id);
}

/* Listing the directory makes NFS refresh it from the server. */
static bool sees_lock(const char *directory, const nd_lock_owner *owner)
{
    char path[ND_CHECKPOINT_PATH_MAX + 64];
    nd_lock_owner found = {.pid = -1};
    snprintf(path, sizeof path, "%s/" ND_RUN_LOCK_NAME, directory);
    ND_CLEANUP(nd_close_directory) DIR *list = opendir(directory);
    ND_CLEANUP(nd_close_descriptor) int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    return file >= 0 && read_record(file, &found) && same_owner(&found, owner);
}

static nd_status find_lock(const nd_config *config, const nd_lock_owner *owner)
{
    char directory[ND_CHECKPOINT_PATH_MAX], here[ND_CHECKPOINT_PATH_MAX] = "?", *real;
    const double deadline = nd_seconds() + PATIENCE_SECONDS;
    nd_checkpoint_directory(config, directory, sizeof directory);
    while (!sees_lock(directory, owner)) {
        if (nd_seconds() < deadline) {
            usleep(50000);
            continue;
        }
        real = realpath(directory, NULL);
        if (!getcwd(here, sizeof here))
            strcpy(here, "?");
        const nd_status status = ND_FAIL(
            ND_ECONFIG,
            "%.400s, which is %.400s here (working directory %.400s), is not the directory that "
            "rank 0 on host %s has locked; all ranks must reach one directory of checkpoints by "
            "this path: start them in one working directory and on a shared file system",
            directory, real ? real : "absent", here, owner->host);
        free(real);
        return status;
    }
    return ND_OK;
}

nd_status nd_run_locks_compare(const nd_config *config, const nd_run_locks *locks, nd_comm *comm)
{
    nd_lock_owner owner = {.pid = 0};
    const nd_run_lock *mine = locks->checkpoints ? locks->checkpoints : locks->run;
    if (comm->size == 1)
        return ND_OK;
    if (comm->rank == 0)
        owner = mine->self;
    ND_TRY(comm->ops.broadcast(comm, &owner, sizeof owner, 0));
    return nd_comm_agree(comm, comm->rank == 0 ? ND_OK : find_lock(config, &owner));
}

void nd_run_locks_name(const nd_run_locks *locks, const char *run_id)
{
    nd_run_lock *const all[] = {locks->run, locks->checkpoints};
    for (int i = 0; i < 2; i++) {
        if (!all[i])
            continue;
        snprintf(all[i]->self.run_id, sizeof all[i]->self.run_id, "%s", run_id);
        if (write_record(all[i]) != ND_OK)
            nd_error_clear();
    }
}

void nd_run_locks_release(nd_run_locks *locks)
{
    nd_run_lock_release(locks->checkpoints);
    nd_run_lock_release(locks->run);
    *locks = (nd_run_locks){0};
}
