/* Files that are whole or absent: written under a temporary name, fsynced, renamed, and the
 * directory fsynced, in that order. */
#ifndef ND_DATA_DURABLE_FILE_H
#define ND_DATA_DURABLE_FILE_H

#include "core/error.h"

#include <stddef.h>

/* Suffix of files that are not finished yet. */
#define ND_TEMPORARY_SUFFIX ".tmp"

/* Makes the finished file `temporary` appear as `path`. Errors: ND_EIO; `temporary` is removed. */
nd_status nd_durable_rename(const char *temporary, const char *path);

nd_status nd_durable_write(const char *path, const void *bytes, size_t size);

/* A whole file of at most `limit` bytes; the caller frees *bytes. Errors: `status`, naming the file
 * and why it cannot be read. */
nd_status nd_read_whole_file(const char *path, size_t limit, nd_status status, void **bytes,
                             size_t *size);

#endif
