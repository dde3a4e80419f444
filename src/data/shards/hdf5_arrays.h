/* Plain arrays in HDF5 files, for cross-checks with other programs. */
#pragma once

#include "core/base/error.h"
#include "core/base/view.h"

#include <stdbool.h>

typedef struct nd_hdf5_out nd_hdf5_out;

/* Reads a 2-D integer dataset as int32 [rows, cols]; the caller frees *values, also when it failed.
 * Errors: ND_EDATA naming file and dataset, and a value that does not fit. */
nd_status nd_hdf5_read_tokens(const char *path, const char *dataset, int32_t **values,
                              int64_t *rows, int64_t *cols);

/* Checks that a new file may replace what is at `path`: nothing, an empty file, or an HDF5 file in
 * which `mark` leads to something. Errors, here and below: ND_EIO naming the file. */
nd_status nd_hdf5_out_check(const char *path, const char *mark);

/* The same check, then creates a file under a temporary name. */
nd_status nd_hdf5_out_create(const char *path, const char *mark, nd_hdf5_out **out);

/* Writes f32, f64 or i32 values (host memory), or a scalar if `rows` is 0; creates the groups that
 * `name` contains. */
nd_status nd_hdf5_out_write(nd_hdf5_out *out, const char *name, nd_cview values);

/* Closes the file and renames it to its path, or removes it unless `keep`. Frees `out`. */
nd_status nd_hdf5_out_close(nd_hdf5_out *out, bool keep);

/* The parts of this for other files of this program, whose caller holds HDF5's lock: the shape of a
 * dataset, false and zeros if that is no matrix; and adding a text to a file or dataset as an
 * attribute, false if HDF5 cannot. */
bool nd_hdf5_shape(int64_t dataset, int64_t shape[2]);
bool nd_hdf5_put_text(int64_t object, const char *name, const char *text);

/* The version of the HDF5 library in use: "1.10.8". */
void nd_hdf5_version(char *text, size_t size);
