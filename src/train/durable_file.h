/* Files that survive a crash: written under a temporary name, fsynced, renamed, the directory
 * fsynced. */
#ifndef ND_TRAIN_DURABLE_FILE_H
#define ND_TRAIN_DURABLE_FILE_H

#include "core/sha256.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* mkdir -p. */
nd_status nd_directory_create(const char *path);

/* Removes a directory and what is in it, one level of files deep. */
nd_status nd_directory_remove(const char *path);

/* fsync of a file or directory by name. */
nd_status nd_path_sync(const char *path);

/* Writes a whole file and fsyncs it (no rename: the caller's directory is the unit). */
nd_status nd_file_write_synced(const char *path, const void *bytes, size_t size);

/* Reads a whole file; the caller frees *bytes, NUL-terminated beyond *size. */
nd_status nd_file_read(const char *path, char **bytes, size_t *size);

/* Size and SHA-256 of a file, read in parts. */
nd_status nd_file_digest(const char *path, int64_t *bytes, char hex[ND_SHA256_HEX_SIZE]);

/* Atomically makes `link` a symbolic link to `target`, and fsyncs its directory. */
nd_status nd_link_replace(const char *directory, const char *link, const char *target);

#endif
