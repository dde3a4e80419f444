/* Files and directories that survive a crash: written under a temporary name, fsynced, renamed, and
 * the directory fsynced, in that order. All paths are shorter than PATH_MAX. */
#pragma once

#include "core/base/sha256.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Suffix of files that are not finished yet. */
#define ND_TEMPORARY_SUFFIX ".tmp"

/* Creates a file to be renamed to `path` when it is finished, open for writing, or with `file` NULL
 * a directory. Its name is PATH.NUMBER.tmp and was nobody's, so that removing it removes nothing of
 * others. Removes those of PATH whose processes have ended, which this knows of its own kernel and
 * namespace. Errors: ND_EIO. */
nd_status nd_temporary_create(const char *path, char temporary[PATH_MAX], int *file);

/* Checks that a new file may replace what is at `path`: nothing, an empty file, or a file that
 * begins with `magic` (NULL: any; `kind` names such files in the error), but no directory, device,
 * pipe or socket, nor a link into /proc such as /dev/stdout. `kind` begins with an article. Errors:
 * ND_ECONFIG. */
nd_status nd_durable_check(const char *path, const char *magic, const char *kind);

/* Creates the directory that `path` lies in and checks that files can be created in it: before the
 * work whose result goes there. Errors: ND_EIO; ND_ECONFIG when something else is in its place. */
nd_status nd_durable_prepare(const char *path);

/* Renames the finished file `temporary` to `path`, durably. Errors: ND_EIO, ND_ECONFIG; `temporary`
 * is then removed. */
nd_status nd_durable_rename(const char *temporary, const char *path);

/* Replaces the file `path` by these bytes. After an error (as nd_durable_rename) or crash the old
 * or the new one is there, whole. */
nd_status nd_durable_write(const char *path, const void *bytes, size_t size);

/* Atomically makes `link` in `directory` a symbolic link to `target`. On a file system without
 * symbolic links nothing is done and *unsupported is set; with `unsupported` NULL that is an error.
 * Errors: ND_EIO. */
nd_status nd_durable_link(const char *directory, const char *link, const char *target,
                          bool *unsupported);

/* Writes a whole file and fsyncs it; its caller fsyncs the directory. Errors: ND_EIO. */
nd_status nd_file_write_synced(const char *path, const void *bytes, size_t size);

/* Reads a whole file of at most 256 MiB; the caller frees *bytes, which has a NUL after *size
 * bytes. Errors: `status`, naming the file and why it cannot be read; ND_ENOMEM. */
nd_status nd_read_whole_file(const char *path, nd_status status, void **bytes, size_t *size);

/* Size and SHA-256 of a file, read in parts. Errors: ND_EIO. */
nd_status nd_file_digest(const char *path, int64_t *bytes, char hex[ND_SHA256_HEX_SIZE]);

/* Appends a record to an open file (`path`: for messages); if the disk is full, no part of it
 * stays. Errors: ND_EIO. */
nd_status nd_file_append(int file, const char *path, const void *bytes, size_t size);

/* Writes all of these bytes to an open file. Errors: ND_EIO. */
nd_status nd_file_write(int file, const char *path, const void *bytes, size_t size);

/* fsyncs a file or directory by name; skips directories that cannot be fsynced. Errors: ND_EIO. */
nd_status nd_path_sync(const char *path);

/* mkdir -p. Errors: ND_EIO; ND_ECONFIG when the path is of something else. */
nd_status nd_directory_create(const char *path);

/* Removes a directory and the files in it, one level deep, without following symbolic links. Does
 * nothing if there is none. Errors: ND_EIO. */
nd_status nd_directory_remove(const char *path);
