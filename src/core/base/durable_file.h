/* Files and directories that survive a crash: written under a temporary name, fsynced, renamed, and
 * the directory fsynced, in that order. All paths are shorter than PATH_MAX. */
#pragma once

#include "core/base/sha256.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Suffix of files that are not finished yet. */
#define ND_TEMPORARY_SUFFIX ".tmp"

/* Whether a file may take the place of what is at `path`: nothing, an empty file, or a file that begins with
 * `magic` (NULL: any), of which `kind` says what it is; no device, pipe or socket, nor a link into /proc such as
 * /dev/stdout. Errors: ND_EIO. */
nd_status nd_durable_check(const char *path, const char *magic, const char *kind);

/* Makes the finished file `temporary` appear as `path`. Errors: ND_EIO; `temporary` is removed. */
nd_status nd_durable_rename(const char *temporary, const char *path);

/* The file `path` with these bytes, or the file that was there before. */
nd_status nd_durable_write(const char *path, const void *bytes, size_t size);

/* Atomically makes `link` in `directory` a symbolic link to `target`. *unsupported says that nothing was
 * done because this file system has no symbolic links, which is an error where it is NULL. */
nd_status nd_durable_link(const char *directory, const char *link, const char *target,
                          bool *unsupported);

/* Writes a whole file and fsyncs it in place, for callers whose unit is the directory around it. */
nd_status nd_file_write_synced(const char *path, const void *bytes, size_t size);

/* A whole file of at most `limit` bytes; the caller frees *bytes, NUL-terminated beyond *size. Errors:
 * `status`, naming the file and why it cannot be read. */
nd_status nd_read_whole_file(const char *path, size_t limit, nd_status status, void **bytes,
                             size_t *size);

/* Size and SHA-256 of a file, read in parts. */
nd_status nd_file_digest(const char *path, int64_t *bytes, char hex[ND_SHA256_HEX_SIZE]);

/* Appends a record to an open file, whole or, when the disk is full, not at all. Errors: ND_EIO. */
nd_status nd_file_append(int file, const char *path, const void *bytes, size_t size);

/* fsync of a file or directory by name; a directory whose file system cannot fsync it is skipped. */
nd_status nd_path_sync(const char *path);

/* mkdir -p. */
nd_status nd_directory_create(const char *path);

/* Removes a directory and the files in it, one level deep; absent is fine. A symbolic link is not
 * followed. */
nd_status nd_directory_remove(const char *path);
