/* Files of snapshots, written without fsync or mapped, so that messages go memory to memory. */
#include "core/base/close.h"
#include "core/base/durable_file.h"
#include "train/snapshot/snapshot_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static nd_status write_file(const char *path, const void *bytes, size_t size)
{
    char temporary[ND_CHECKPOINT_PATH_MAX + 8];
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    ND_CLEANUP(nd_close_descriptor)
    int file = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    ND_FAIL_IF(file < 0, ND_ECHECKPOINT, "cannot write %s: %s", path, strerror(errno));
    nd_status status = nd_file_write(file, path, bytes, size);
    if (status == ND_OK && rename(temporary, path) != 0)
        status = ND_FAIL(ND_ECHECKPOINT, "cannot write %s: %s", path, strerror(errno));
    if (status != ND_OK)
        unlink(temporary);
    return status;
}

nd_status nd_snapshot_write_texts(const nd_run *run, int64_t step, const nd_snapshot_found *texts)
{
    char directory[ND_CHECKPOINT_PATH_MAX], path[ND_CHECKPOINT_PATH_MAX];
    ND_TRY(nd_snapshot_step_path(run, step, directory));
    ND_TRY(nd_directory_create(directory));
    ND_TRY(nd_checkpoint_join(path, directory, "config.ini"));
    ND_TRY(write_file(path, texts->config_text, texts->config_bytes));
    ND_TRY(nd_checkpoint_join(path, directory, "manifest.json"));
    return write_file(path, texts->manifest_text, texts->manifest_bytes);
}

static nd_status map(int file, const char *path, int protection, size_t bytes, void **data)
{
    *data = bytes > 0 ? mmap(NULL, bytes, protection, MAP_SHARED | MAP_POPULATE, file, 0) : NULL;
    if (*data != MAP_FAILED)
        return ND_OK;
    *data = NULL;
    return ND_FAIL(ND_ECHECKPOINT, "cannot map %s: %s", path, strerror(errno));
}

nd_status nd_snapshot_map(const char *path, void **data, size_t *bytes)
{
    struct stat info;
    ND_CLEANUP(nd_close_descriptor) int file = open(path, O_RDONLY | O_CLOEXEC);
    ND_FAIL_IF(file < 0 || fstat(file, &info) != 0, ND_ECHECKPOINT, "cannot open %s: %s", path,
               strerror(errno));
    *bytes = (size_t)info.st_size;
    return map(file, path, PROT_READ, *bytes, data);
}

/* Allocates all pages now: otherwise a write to the mapping could end the process (SIGBUS). */
nd_status nd_snapshot_map_new(const char *path, size_t bytes, void **data)
{
    ND_CLEANUP(nd_close_descriptor) int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    ND_FAIL_IF(file < 0, ND_ECHECKPOINT, "cannot make %s: %s", path, strerror(errno));
    int reason = ftruncate(file, (off_t)bytes) == 0 ? 0 : errno;
    if (reason == 0 && bytes > 0)
        reason = posix_fallocate(file, 0, (off_t)bytes);
    nd_status status = ND_CHECK(reason == 0, ND_ECHECKPOINT, "no room for %s (%zu bytes): %s", path,
                                bytes, strerror(reason));
    ND_IF_OK(map(file, path, PROT_READ | PROT_WRITE, bytes, data));
    if (status != ND_OK)
        unlink(path);
    return status;
}

void nd_snapshot_unmap(void *data, size_t bytes)
{
    if (data)
        munmap(data, bytes);
}
