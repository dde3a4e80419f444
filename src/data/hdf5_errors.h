/* HDF5's errors as text for our messages; the library itself prints nothing. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* To be called before a thread's other calls of HDF5. The library prints no error stack, and does not
 * clean up at the end of the process: HDF5 1.10 crashes there when a file could not be closed because
 * the disk was full. */
void nd_hdf5_start(void);

/* How files are opened and made: without HDF5's file locks, which many shared file systems lack or refuse, and
 * with checksums on metadata where `checked`. Nothing here writes to a file that others read. A property list of HDF5
 * that lives as long as the process; after nd_hdf5_start. */
int64_t nd_hdf5_access(bool checked);

/* Whether the calling thread's last HDF5 error came from the system: then nothing was read that is wrong. */
bool nd_hdf5_is_system_error(void);

/* The innermost reason of the calling thread's last HDF5 error; valid until the next call. */
const char *nd_hdf5_reason(void);
