#include "io_faults.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum kind {
    NOTHING,
    NO_SPACE,
    IO_ERROR,
    SHORT_WRITE,
    NO_DIRECTORY_SYNC,
    NO_LINKS,
    NO_EXCHANGE,
    NO_LISTING,
    APART,
    ONLY_MOVES,
    KILL,
    NO_LOCKS
};
static const char *const kinds[] = {"",          "enospc",    "eio",        "short",
                                    "nodirsync", "nosymlink", "noexchange", "nolisting",
                                    "apart",     "nomove",    "kill",       "nolock"};

/* What the kernel is asked for. */
enum need { NO_ROOM, SCRATCH, ROOM_FOR_BYTES };

static atomic_int kind;
static atomic_long at, seen, hit;
static char directory[PATH_MAX], first[PATH_MAX];

void nd_io_faults_arm(const char *name, long call, const char *below)
{
    atomic_store(&kind, NOTHING);
    snprintf(directory, sizeof directory, "%s", below ? below : "");
    first[0] = '\0';
    atomic_store(&seen, 0);
    atomic_store(&hit, 0);
    atomic_store(&at, call);
    if (name)
        for (int i = 1; i < (int)(sizeof kinds / sizeof *kinds); i++)
            if (strcmp(name, kinds[i]) == 0)
                atomic_store(&kind, i);
}

long nd_io_faults_seen(void)
{
    return atomic_load(&seen);
}

long nd_io_faults_hit(void)
{
    return atomic_load(&hit);
}

const char *nd_io_faults_first(void)
{
    return first;
}

__attribute__((constructor)) static void read_environment(void)
{
    const char *fault = getenv("ND_IO_FAULT"), *only = getenv("ND_IO_RANK");
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    char name[16], below[PATH_MAX];
    long call;
    if (fault && (!only || (rank && strcmp(only, rank) == 0)) &&
        sscanf(fault, "%15[a-z]:%ld:%4095s", name, &call, below) == 3)
        nd_io_faults_arm(name, call, below);
}

static bool is_below(const char *path)
{
    return directory[0] && strncmp(path, directory, strlen(directory)) == 0;
}

static void path_of(int file, char path[PATH_MAX])
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    const ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = '\0';
}

static void note(const char *call, const char *path)
{
    const char *name = strrchr(path, '/');
    if (atomic_fetch_add(&hit, 1) == 0)
        snprintf(first, sizeof first, "%s %s", call, name ? name + 1 : path);
}

/* Whether the file system below the directory lacks `what`. */
static bool lacks(enum kind what, const char *path)
{
    return (int)what == atomic_load(&kind) && is_below(path);
}

/* The error that this call must end with, 0 for none; *bytes may shrink. */
static int fault(const char *call, const char *path, enum need need, size_t *bytes)
{
    const int now = atomic_load(&kind);
    if (!is_below(path) || (now == ONLY_MOVES && strcmp(call, "renameat2") != 0))
        return 0;
    const long number = atomic_fetch_add(&seen, 1) + 1, when = atomic_load(&at);
    if (now == NO_SPACE && number >= when && need != NO_ROOM) {
        note(call, path);
        return ENOSPC;
    }
    if ((now == IO_ERROR || now == ONLY_MOVES) && number == when) {
        note(call, path);
        return EIO;
    }
    if (now == KILL && number == when)
        raise(SIGKILL);
    if (now == SHORT_WRITE && number == when && need == ROOM_FOR_BYTES && *bytes > 1) {
        note(call, path);
        *bytes /= 2;
    }
    return 0;
}

static int fault_of_file(const char *call, int file, enum need need, size_t *bytes)
{
    char path[PATH_MAX];
    if (!directory[0])
        return 0;
    path_of(file, path);
    return fault(call, path, need, bytes);
}

static int failed(int reason)
{
    errno = reason;
    return -1;
}

static int open_file(const char *path, int flags, mode_t mode)
{
    const int reason = fault("open", path, flags & O_CREAT ? SCRATCH : NO_ROOM, NULL);
    return reason ? failed(reason) : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static mode_t mode_of(int flags, va_list arguments)
{
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    const mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_file(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    const mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_file(path, flags, mode);
}

int close(int file)
{
    const int reason = fault_of_file("close", file, NO_ROOM, NULL);
    const int result = (int)syscall(SYS_close, file);
    return reason ? failed(reason) : result;
}

ssize_t read(int file, void *buffer, size_t bytes)
{
    const int reason = fault_of_file("read", file, NO_ROOM, NULL);
    return reason ? failed(reason) : syscall(SYS_read, file, buffer, bytes);
}

static ssize_t read_at(int file, void *buffer, size_t bytes, off_t offset)
{
    const int reason = fault_of_file("pread", file, NO_ROOM, NULL);
    return reason ? failed(reason) : syscall(SYS_pread64, file, buffer, bytes, offset);
}

ssize_t pread(int file, void *buffer, size_t bytes, off_t offset)
{
    return read_at(file, buffer, bytes, offset);
}

ssize_t pread64(int file, void *buffer, size_t bytes, off64_t offset)
{
    return read_at(file, buffer, bytes, offset);
}

ssize_t write(int file, const void *buffer, size_t bytes)
{
    const int reason = fault_of_file("write", file, ROOM_FOR_BYTES, &bytes);
    return reason ? failed(reason) : syscall(SYS_write, file, buffer, bytes);
}

static ssize_t write_at(int file, const void *buffer, size_t bytes, off_t offset)
{
    const int reason = fault_of_file("pwrite", file, ROOM_FOR_BYTES, &bytes);
    return reason ? failed(reason) : syscall(SYS_pwrite64, file, buffer, bytes, offset);
}

ssize_t pwrite(int file, const void *buffer, size_t bytes, off_t offset)
{
    return write_at(file, buffer, bytes, offset);
}

ssize_t pwrite64(int file, const void *buffer, size_t bytes, off64_t offset)
{
    return write_at(file, buffer, bytes, offset);
}

static int truncate_file(int file, off_t length)
{
    const int reason = fault_of_file("ftruncate", file, NO_ROOM, NULL);
    return reason ? failed(reason) : (int)syscall(SYS_ftruncate, file, length);
}

int ftruncate(int file, off_t length)
{
    return truncate_file(file, length);
}

int ftruncate64(int file, off64_t length)
{
    return truncate_file(file, length);
}

int fsync(int file)
{
    char path[PATH_MAX];
    struct stat info;
    path_of(file, path);
    if (lacks(NO_DIRECTORY_SYNC, path) && fstat(file, &info) == 0 && S_ISDIR(info.st_mode))
        return failed(EINVAL);
    const int reason = fault_of_file("fsync", file, NO_ROOM, NULL);
    return reason ? failed(reason) : (int)syscall(SYS_fsync, file);
}

int mkdir(const char *path, mode_t mode)
{
    const int reason = fault("mkdir", path, SCRATCH, NULL);
    return reason ? failed(reason) : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

int rename(const char *from, const char *to)
{
    const int reason = fault("rename", to, SCRATCH, NULL);
    return reason ? failed(reason) : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int renameat2(int from_directory, const char *from, int to_directory, const char *to,
              unsigned flags)
{
    if (lacks(NO_EXCHANGE, to) && flags != 0)
        return failed(EINVAL);
    if (lacks(APART, to) && !is_below(from))
        return failed(EXDEV);
    const int reason = fault("renameat2", to, SCRATCH, NULL);
    return reason ? failed(reason)
                  : (int)syscall(SYS_renameat2, from_directory, from, to_directory, to, flags);
}

int symlink(const char *target, const char *path)
{
    if (lacks(NO_LINKS, path))
        return failed(EPERM);
    const int reason = fault("symlink", path, SCRATCH, NULL);
    return reason ? failed(reason) : (int)syscall(SYS_symlinkat, target, AT_FDCWD, path);
}

int unlinkat(int at_directory, const char *path, int flags)
{
    const int reason = fault_of_file("unlinkat", at_directory, NO_ROOM, NULL);
    return reason ? failed(reason) : (int)syscall(SYS_unlinkat, at_directory, path, flags);
}

int unlink(const char *path)
{
    const int reason = fault("unlink", path, NO_ROOM, NULL);
    return reason ? failed(reason) : (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int flock(int file, int operation)
{
    return atomic_load(&kind) == NO_LOCKS ? failed(ENOLCK)
                                          : (int)syscall(SYS_flock, file, operation);
}

int rmdir(const char *path)
{
    const int reason = fault("rmdir", path, NO_ROOM, NULL);
    return reason ? failed(reason) : (int)syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
}

DIR *opendir(const char *path)
{
    if (lacks(NO_LISTING, path)) {
        errno = ESTALE;
        return NULL;
    }
    const int file = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return file < 0 ? NULL : fdopendir(file);
}
