#include "data/durable_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int fsync_path(const char *path, int flags)
{
    const int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0)
        return -1;
    const int result = fsync(fd);
    close(fd);
    return result;
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

nd_status nd_durable_rename(const char *temporary, const char *path)
{
    char directory[PATH_MAX];
    directory_of(path, directory);
    const char *step = "flush";
    if (fsync_path(temporary, O_RDONLY) != 0)
        goto failed;
    step = "rename";
    if (rename(temporary, path) != 0)
        goto failed;
    step = "flush the directory of";
    if (fsync_path(directory, O_RDONLY | O_DIRECTORY) != 0)
        goto failed;
    return ND_OK;
failed:;
    const int reason = errno;
    unlink(temporary);
    return ND_FAIL(ND_EIO, "%s: cannot %s this file: %s", path, step, strerror(reason));
}

nd_status nd_durable_write(const char *path, const void *bytes, size_t size)
{
    char temporary[PATH_MAX];
    if ((size_t)snprintf(temporary, sizeof temporary, "%s%s", path, ND_TEMPORARY_SUFFIX) >=
        sizeof temporary)
        return ND_FAIL(ND_EIO, "%s: the path is longer than %d characters", path, PATH_MAX - 5);
    FILE *file = fopen(temporary, "wbe");
    if (!file)
        return ND_FAIL(ND_EIO, "%s: cannot create this file: %s", path, strerror(errno));
    const size_t written = fwrite(bytes, 1, size, file);
    const int reason = errno;
    if (fclose(file) != 0 || written != size) {
        unlink(temporary);
        return ND_FAIL(ND_EIO, "%s: cannot write %zu bytes: %s", path, size, strerror(reason));
    }
    return nd_durable_rename(temporary, path);
}

nd_status nd_read_whole_file(const char *path, size_t limit, nd_status status, void **bytes,
                             size_t *size)
{
    *bytes = NULL;
    *size = 0;
    FILE *file = fopen(path, "rbe");
    if (!file)
        return ND_FAIL(status, "%s: cannot open this file: %s", path, strerror(errno));
    struct stat info;
    nd_status result = ND_OK;
    if (fstat(fileno(file), &info) != 0 || !S_ISREG(info.st_mode)) {
        result = ND_FAIL(status, "%s: not a regular file", path);
    } else if ((uint64_t)info.st_size > limit) {
        result = ND_FAIL(status, "%s: %lld bytes; expected at most %zu", path,
                         (long long)info.st_size, limit);
    } else if (!(*bytes = malloc((size_t)info.st_size + 1))) {
        result =
            ND_FAIL(ND_ENOMEM, "%s: no memory for its %lld bytes", path, (long long)info.st_size);
    } else {
        *size = fread(*bytes, 1, (size_t)info.st_size, file);
        if (*size != (size_t)info.st_size)
            result = ND_FAIL(status, "%s: read %zu of its %lld bytes", path, *size,
                             (long long)info.st_size);
    }
    fclose(file);
    if (result != ND_OK) {
        free(*bytes);
        *bytes = NULL;
    }
    return result;
}
