/* HDF5's reasons as text: the library prints nothing by itself, our messages carry what it says. */
#ifndef ND_DATA_HDF5_ERRORS_H
#define ND_DATA_HDF5_ERRORS_H

/* To be called before a thread's other calls of HDF5. The library prints no error stack, and does not
 * clean up at the end of the process: HDF5 1.10 crashes there when a file could not be closed because
 * the disk was full. */
void nd_hdf5_start(void);

/* The innermost reason of the calling thread's last HDF5 error; valid until the next call. */
const char *nd_hdf5_reason(void);

#endif
