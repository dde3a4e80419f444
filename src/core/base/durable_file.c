#include "core/base/durable_file.h"

#include "core/base/close.h"
#include "core/base/directory.h"
#include "core/base/rng.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/evp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PART_BYTES = 1 << 20, WHOLE_FILE_BYTES_MAX = 1 << 28, TEMPORARY_NAMES = 1000 };

nd_status nd_path_sync(const char *path)
{
    ND_CLEANUP(nd_close_descriptor) int file = open(path, O_RDONLY | O_CLOEXEC);
    ND_FAIL_IF(file < 0, ND_EIO, "cannot open %s to sync it: %s", path, strerror(errno));
    struct stat info;
    int reason = fsync(file) == 0 ? 0 : errno;
    if ((reason == EINVAL || reason == ENOTSUP || reason == ENOSYS) && fstat(file, &info) == 0 &&
        S_ISDIR(info.st_mode))
        reason = 0; /* reported by nd_directory_can_sync */
    return reason ? ND_FAIL(ND_EIO, "cannot sync %s: %s", path, strerror(reason)) : ND_OK;
}

nd_status nd_file_write(int file, const char *path, const void *bytes, size_t left)
{
    const char *at = bytes;
    while (left > 0) {
        const ssize_t wrote = write(file, at, left);
        if (wrote < 0 && errno == EINTR)
            continue;
        ND_FAIL_IF(wrote <= 0, ND_EIO, "cannot write %s: %s", path,
                   strerror(wrote < 0 ? errno : ENOSPC));
        at += wrote;
        left -= (size_t)wrote;
    }
    return ND_OK;
}

nd_status nd_file_append(int file, const char *path, const void *bytes, size_t size)
{
    const off_t before = lseek(file, 0, SEEK_END);
    const nd_status status = nd_file_write(file, path, bytes, size);
    if (status != ND_OK && before >= 0) {
        /* A partial record would make the next one unreadable, too. */
        const int failed = ftruncate(file, before);
        (void)failed;
    }
    return status;
}

static nd_status finish_synced(int file, const char *path, const void *bytes, size_t size)
{
    const nd_status status = nd_file_write(file, path, bytes, size);
    const int failed = status == ND_OK && fsync(file) != 0 ? errno : 0;
    const int closed = close(file) != 0 ? errno : 0;
    ND_TRY(status);
    return ND_CHECK(!failed && !closed, ND_EIO, "cannot finish %s: %s", path,
                    strerror(failed ? failed : closed));
}

nd_status nd_file_write_synced(const char *path, const void *bytes, size_t size)
{
    const int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    ND_FAIL_IF(file < 0, ND_EIO, "cannot write %s: %s", path, strerror(errno));
    return finish_synced(file, path, bytes, size);
}

static void directory_of(const char *path, char directory[PATH_MAX])
{
    snprintf(directory, PATH_MAX, "%s", path);
    char *slash = strrchr(directory, '/');
    if (!slash)
        strcpy(directory, ".");
    else if (slash == directory)
        slash[1] = '\0';
    else
        *slash = '\0';
}

/* Ten digits for the running kernel and the namespace that this process's id is of; 0: unknown. */
static long long place_of_process(void)
{
    char boot[64] = "";
    struct stat namespace;
    ND_CLEANUP(nd_close_file) FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    const bool known =
        file && fgets(boot, sizeof boot, file) && stat("/proc/self/ns/pid", &namespace) == 0;
    return known ? (long long)(nd_rng_key(namespace.st_ino, boot) % 10000000000u) : 0;
}

/* Whether `name` is `path`'s name and a number that a process at this place gave it that has
 * ended. */
static bool is_dead(const char *path, const char *name, long long place)
{
    const char *slash = strrchr(path, '/'), *own = slash ? slash + 1 : path;
    const size_t length = strlen(own);
    long long written;
    long number; /* the process's, and three digits */
    int end = 0;
    return strncmp(name, own, length) == 0 &&
           sscanf(name + length, ".%10lld%ld" ND_TEMPORARY_SUFFIX "%n", &written, &number, &end) ==
               2 &&
           end > 0 && !name[length + (size_t)end] && written == place && number >= 1000 &&
           kill((pid_t)(number / 1000), 0) != 0 && errno == ESRCH;
}

/* Removes what processes that were killed left unfinished beside `path`, as far as it can. */
static void remove_dead(const char *path, long long place)
{
    char left[PATH_MAX];
    directory_of(path, left);
    const size_t length = strlen(left);
    ND_CLEANUP(nd_close_directory) DIR *directory = place > 0 ? opendir(left) : NULL;
    for (const struct dirent *entry; directory && (entry = readdir(directory));) {
        if (!is_dead(path, entry->d_name, place) ||
            (size_t)snprintf(left + length, sizeof left - length, "/%s", entry->d_name) >=
                sizeof left - length)
            continue;
        if (unlink(left) != 0 && errno == EISDIR && nd_error_get()->status == ND_OK &&
            nd_directory_remove(left) != ND_OK)
            nd_error_clear();
    }
}

nd_status nd_temporary_create(const char *path, char temporary[PATH_MAX], int *file)
{
    const long long place = place_of_process();
    int made = -1;
    remove_dead(path, place);
    for (int i = 0; made < 0 && i < TEMPORARY_NAMES; i++) {
        if (snprintf(temporary, PATH_MAX, "%s.%010lld%ld%03d%s", path, place, (long)getpid(), i,
                     ND_TEMPORARY_SUFFIX) >= PATH_MAX)
            return ND_FAIL(ND_EIO, "%.80s...: the path is too long", path);
        made = file ? open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)
                    : mkdir(temporary, 0777);
        ND_FAIL_IF(made < 0 && errno != EEXIST, ND_EIO, "cannot write %s: %s", path,
                   strerror(errno));
    }
    ND_FAIL_IF(made < 0, ND_EIO, "cannot write %s: %s and %d more are there", path, temporary,
               TEMPORARY_NAMES - 1);
    if (file)
        *file = made;
    return ND_OK;
}

static bool begins_with(const char *path, const char *magic)
{
    char first[16] = "";
    const size_t size = strlen(magic);
    ND_CLEANUP(nd_close_descriptor) int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    return file >= 0 && read(file, first, size) == (ssize_t)size && memcmp(first, magic, size) == 0;
}

nd_status nd_durable_check(const char *path, const char *magic, const char *kind)
{
    static const char unnamed[] = "/proc/";
    char target[sizeof unnamed];
    struct stat info;
    const bool present = stat(path, &info) == 0;
    const ssize_t length = readlink(path, target, sizeof target);
    ND_FAIL_IF(present && S_ISDIR(info.st_mode), ND_ECONFIG,
               "%s: a directory; give the name of a file", path);
    if ((present && !S_ISREG(info.st_mode)) ||
        (length == (ssize_t)sizeof unnamed && memcmp(target, unnamed, sizeof unnamed - 1) == 0))
        return ND_FAIL(ND_ECONFIG,
                       "%s: a device, a pipe or a link to one, which would be replaced by a "
                       "file; give the name of a file",
                       path);
    ND_FAIL_IF(present && magic && info.st_size > 0 && !begins_with(path, magic), ND_ECONFIG,
               "%s: this file is not %s and is not replaced by one; move it elsewhere, or give "
               "another name",
               path, kind);
    return ND_OK;
}

nd_status nd_durable_prepare(const char *path)
{
    char directory[PATH_MAX];
    directory_of(path, directory);
    ND_TRY(nd_directory_create(directory));
    return ND_CHECK(access(directory, W_OK | X_OK) == 0, ND_EIO, "%s: cannot write into %s: %s",
                    path, directory, strerror(errno));
}

nd_status nd_durable_rename(const char *temporary, const char *path)
{
    char directory[PATH_MAX];
    directory_of(path, directory);
    nd_status status = nd_durable_check(path, NULL, NULL);
    ND_IF_OK(nd_path_sync(temporary));
    ND_IF_OK(ND_CHECK(rename(temporary, path) == 0, ND_EIO, "%s: cannot rename %s to this: %s",
                      path, temporary, strerror(errno)));
    if (status != ND_OK)
        unlink(temporary);
    return status == ND_OK ? nd_path_sync(directory) : status;
}

nd_status nd_durable_write(const char *path, const void *bytes, size_t size)
{
    char temporary[PATH_MAX];
    int file;
    ND_TRY(nd_temporary_create(path, temporary, &file));
    const nd_status status = finish_synced(file, path, bytes, size);
    if (status != ND_OK) {
        unlink(temporary);
        return status;
    }
    return nd_durable_rename(temporary, path);
}

nd_status nd_durable_link(const char *directory, const char *link, const char *target,
                          bool *unsupported)
{
    char temporary[PATH_MAX], final[PATH_MAX];
    if (unsupported)
        *unsupported = false;
    if (snprintf(temporary, sizeof temporary, "%s/.tmp_%s", directory, link) >= PATH_MAX ||
        snprintf(final, sizeof final, "%s/%s", directory, link) >= PATH_MAX)
        return ND_FAIL(ND_EIO, "the path of %s/%s is too long", directory, link);
    unlink(temporary);
    const bool linked = symlink(target, temporary) == 0;
    if (!linked && (errno == EPERM || errno == ENOTSUP || errno == ENOSYS) && unsupported) {
        *unsupported = true;
        return ND_OK;
    }
    ND_FAIL_IF(!linked || rename(temporary, final) != 0, ND_EIO, "cannot make %s point to %s: %s",
               final, target, strerror(errno));
    return nd_path_sync(directory);
}

static nd_status read_all(FILE *file, const char *path, nd_status status, char **bytes,
                          size_t *size)
{
    struct stat info;
    ND_FAIL_IF(fstat(fileno(file), &info) != 0 || !S_ISREG(info.st_mode), status,
               "%s: not a regular file", path);
    ND_FAIL_IF(info.st_size > WHOLE_FILE_BYTES_MAX, status, "%s: %lld bytes; expected at most %d",
               path, (long long)info.st_size, WHOLE_FILE_BYTES_MAX);
    *bytes = malloc((size_t)info.st_size + 1);
    ND_FAIL_IF(!*bytes, ND_ENOMEM, "%s: no memory for its %lld bytes", path,
               (long long)info.st_size);
    *size = fread(*bytes, 1, (size_t)info.st_size, file);
    (*bytes)[*size] = '\0';
    return ND_CHECK(*size == (size_t)info.st_size, status, "%s: read %zu of its %lld bytes", path,
                    *size, (long long)info.st_size);
}

nd_status nd_read_whole_file(const char *path, nd_status status, void **bytes, size_t *size)
{
    char *text = NULL;
    *bytes = NULL;
    *size = 0;
    const int opened = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* do not block on a pipe */
    ND_CLEANUP(nd_close_file) FILE *file = opened >= 0 ? fdopen(opened, "rb") : NULL;
    if (!file) {
        const int reason = errno;
        if (opened >= 0)
            close(opened);
        return ND_FAIL(status, "%s: cannot open this file: %s", path, strerror(reason));
    }
    ND_RETURN_MADE(read_all(file, path, status, &text, size), text, free, bytes);
}

nd_status nd_file_digest(const char *path, int64_t *bytes, char hex[ND_SHA256_HEX_SIZE])
{
    ND_CLEANUP(nd_close_descriptor) int file = open(path, O_RDONLY | O_CLOEXEC);
    ND_FAIL_IF(file < 0, ND_EIO, "cannot read %s: %s", path, strerror(errno));
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    ND_AUTOFREE unsigned char *part = malloc(PART_BYTES);
    unsigned char digest[EVP_MAX_MD_SIZE];
    bool ok = context && part && EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1;
    ssize_t got = 1;
    int reason = ENOMEM; /* the error of libcrypto failures */
    *bytes = 0;
    while (ok && got != 0) {
        got = read(file, part, PART_BYTES);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            reason = errno;
        ok = got >= 0 && EVP_DigestUpdate(context, part, (size_t)got) == 1;
        *bytes += ok ? got : 0;
    }
    ok = ok && EVP_DigestFinal_ex(context, digest, NULL) == 1;
    EVP_MD_CTX_free(context);
    ND_FAIL_IF(!ok, ND_EIO, "cannot read %s to its end: %s", path, strerror(reason));
    nd_hex(digest, 32, hex);
    return ND_OK;
}

nd_status nd_directory_create(const char *path)
{
    char partial[PATH_MAX];
    ND_FAIL_IF(strlen(path) >= sizeof partial, ND_EIO,
               "the path of a directory is longer than %zu bytes", sizeof partial);
    strcpy(partial, path);
    for (char *at = partial + 1;; at++) {
        const char saved = *at;
        if (saved != '/' && saved != '\0')
            continue;
        *at = '\0';
        if (mkdir(partial, 0777) != 0 && errno != EEXIST)
            return ND_FAIL(errno == ENOTDIR ? ND_ECONFIG : ND_EIO, "cannot make directory %s: %s",
                           partial, strerror(errno));
        *at = saved;
        if (saved == '\0')
            break;
    }
    struct stat info;
    const bool there = stat(path, &info) == 0;
    ND_FAIL_IF(!there && errno == ENOENT, ND_ECONFIG, "%s: this symbolic link leads nowhere", path);
    ND_FAIL_IF(!there, ND_EIO, "cannot stat %s: %s", path, strerror(errno));
    ND_FAIL_IF(!S_ISDIR(info.st_mode), ND_ECONFIG, "%s exists and is not a directory", path);
    return ND_OK;
}

nd_status nd_directory_remove(const char *path)
{
    bool exists;
    ND_CLEANUP(nd_names_free) nd_names names = {0};
    ND_TRY(nd_path_exists(path, &exists));
    if (!exists)
        return ND_OK;
    ND_CLEANUP(nd_close_descriptor)
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    ND_FAIL_IF(directory < 0, ND_EIO, "cannot remove %s: %s", path, strerror(errno));
    const nd_status status = nd_directory_names(path, &names);
    for (int i = 0; i < names.count; i++)
        unlinkat(directory, names.list[i], 0);
    ND_TRY(status);
    return ND_CHECK(rmdir(path) == 0, ND_EIO, "cannot remove %s: %s", path, strerror(errno));
}
