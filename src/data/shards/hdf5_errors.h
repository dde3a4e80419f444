/* HDF5's errors as text for messages; the library itself prints nothing. Handles that close
 * themselves. */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>
#include <stdint.h>

/* Call this before a thread's other HDF5 calls. It stops the library from printing error stacks,
 * and from cleaning up at exit, where HDF5 1.10 crashes if a file could not be closed on a full
 * disk. */
void nd_hdf5_start(void);

/* The property list for opening and creating files: without HDF5's file locks, which many shared
 * file systems lack (no file is written while others read it), and if `checked` with checksums on
 * metadata. Lives as long as the process. Call nd_hdf5_start first. */
int64_t nd_hdf5_access(bool checked);

/* Whether the calling thread's last HDF5 error came from the system, not from damaged content. */
bool nd_hdf5_is_system_error(void);

/* The innermost reason of the calling thread's last HDF5 error; valid until the next call. */
const char *nd_hdf5_reason(void);

/* Declares a local with a handle of any kind, which is closed at the end of its scope. Not for
 * files and datasets that are written: closing these can fail. */
#define ND_HDF5_HANDLE ND_CLEANUP(nd_hdf5_release) const int64_t
void nd_hdf5_release(const int64_t *handle);
