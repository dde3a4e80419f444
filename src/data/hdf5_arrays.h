/* Plain arrays in HDF5 files, for cross-checks with other programs. */
#pragma once

#include "core/base/error.h"
#include "core/base/view.h"

#include <stdbool.h>

typedef struct nd_hdf5_out nd_hdf5_out;

/* Reads a 2-D integer dataset as int32; the caller frees *values. Errors: ND_EDATA naming file and
 * dataset, and the value that does not fit. */
nd_status nd_hdf5_read_tokens(const char *path, const char *dataset, int32_t **values,
                              int64_t *rows, int64_t *cols);

/* A new file; nd_hdf5_out_close moves it from a temporary name to `path` once it is whole. */
nd_status nd_hdf5_out_create(const char *path, nd_hdf5_out **out);

/* Writes f32, f64 or i32 values (host memory); groups in `name` are made as needed. rows 0 writes one
 * scalar. */
nd_status nd_hdf5_out_write(nd_hdf5_out *out, const char *name, nd_cview values);

/* Closes and renames; with `keep` false removes what was written. */
nd_status nd_hdf5_out_close(nd_hdf5_out *out, bool keep);

/* The version of the HDF5 library in use: "1.10.8". */
void nd_hdf5_version(char *text, size_t size);
