/* HDF5's reasons as text: the library prints nothing by itself, our messages carry what it says. */
#ifndef ND_DATA_HDF5_ERRORS_H
#define ND_DATA_HDF5_ERRORS_H

/* Stops the calling thread's HDF5 from printing its error stack. */
void nd_hdf5_quiet(void);

/* The innermost reason of the calling thread's last HDF5 error; valid until the next call. */
const char *nd_hdf5_reason(void);

#endif
