#include "core/base/directory.h"

#include "core/base/close.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static nd_status append(nd_names *names, const char *name, const char *path)
{
    if ((names->count & (names->count - 1)) == 0) { /* grow to the next power of two */
        const size_t room = names->count > 0 ? 2 * (size_t)names->count : 1;
        char **grown = realloc(names->list, room * sizeof *grown);
        ND_FAIL_IF(!grown, ND_ENOMEM, "no memory for the names in %s", path);
        names->list = grown;
    }
    names->list[names->count] = strdup(name);
    ND_FAIL_IF(!names->list[names->count], ND_ENOMEM, "no memory for the names in %s", path);
    names->count++;
    return ND_OK;
}

static nd_status read_names(DIR *directory, const char *path, nd_names *names)
{
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(directory);
        if (!entry)
            return ND_CHECK(errno == 0, ND_EIO, "cannot list %s to its end: %s", path,
                            strerror(errno));
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            ND_TRY(append(names, entry->d_name, path));
    }
}

nd_status nd_directory_names(const char *path, nd_names *names)
{
    struct stat info;
    *names = (nd_names){NULL, 0};
    ND_CLEANUP(nd_close_directory) DIR *directory = opendir(path);
    if (!directory && errno == ENOENT && lstat(path, &info) != 0 && errno == ENOENT)
        return ND_OK;
    ND_FAIL_IF(!directory, ND_EIO, "cannot list %s: %s", path,
               errno == ENOENT ? "this symbolic link leads nowhere" : strerror(errno));
    const nd_status status = read_names(directory, path, names);
    if (status != ND_OK)
        nd_names_free(names);
    else if (names->count > 0)
        qsort(names->list, (size_t)names->count, sizeof *names->list, compare);
    return status;
}

void nd_names_free(nd_names *names)
{
    for (int i = 0; i < names->count; i++)
        free(names->list[i]);
    free(names->list);
    *names = (nd_names){NULL, 0};
}

static nd_status get_info(const char *path, struct stat *info, bool *exists)
{
    *exists = lstat(path, info) == 0;
    ND_FAIL_IF(!*exists && errno != ENOENT && errno != ENOTDIR, ND_EIO, "cannot stat %s: %s", path,
               strerror(errno));
    return ND_OK;
}

nd_status nd_path_exists(const char *path, bool *exists)
{
    struct stat info;
    return get_info(path, &info, exists);
}

nd_status nd_path_is_directory(const char *path, bool *is_directory)
{
    struct stat info;
    ND_TRY(get_info(path, &info, is_directory));
    *is_directory = *is_directory && S_ISDIR(info.st_mode);
    return ND_OK;
}

bool nd_path_same(const char *a, const char *b)
{
    struct stat first, second;
    return stat(a, &first) == 0 && stat(b, &second) == 0 && first.st_dev == second.st_dev &&
           first.st_ino == second.st_ino;
}

bool nd_path_is_open_file(const char *path, int file)
{
    struct stat by_path, by_file;
    return stat(path, &by_path) == 0 && fstat(file, &by_file) == 0 &&
           by_path.st_dev == by_file.st_dev && by_path.st_ino == by_file.st_ino;
}

nd_status nd_rename_new(const char *from, const char *to, bool *cross_device)
{
    struct stat info;
    int failed = renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE);
    if (failed && (errno == EINVAL || errno == ENOSYS || errno == ENOTSUP)) {
        /* Without RENAME_NOREPLACE: check, then rename; not atomic. */
        errno = EEXIST;
        failed = lstat(to, &info) == 0 ? -1 : rename(from, to);
    }
    if (cross_device)
        *cross_device = failed && errno == EXDEV;
    return failed ? ND_FAIL(ND_EIO, "cannot move %s to %s: %s", from, to, strerror(errno)) : ND_OK;
}

bool nd_directory_can_sync(const char *path)
{
    ND_CLEANUP(nd_close_descriptor) int file = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return file >= 0 &&
           (fsync(file) == 0 || (errno != EINVAL && errno != ENOTSUP && errno != ENOSYS));
}
