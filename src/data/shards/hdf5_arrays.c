#include "data/shards/hdf5_arrays.h"

#include "core/base/durable_file.h"
#include "data/shards/hdf5_errors.h"
#include "data/shards/hdf5_lock.h"

#include <hdf5.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_LONGEST = 4096 };

struct nd_hdf5_out {
    hid_t file;
    char path[PATH_LONGEST], temporary[PATH_LONGEST + 8];
};

static nd_status narrow(const char *path, const char *name, const int64_t *wide, int64_t count,
                        int32_t *values)
{
    for (int64_t i = 0; i < count; i++) {
        ND_FAIL_IF(wide[i] < 0 || wide[i] > INT32_MAX, ND_EDATA,
                   "%s: %s holds %lld at element %lld; expected tokens from 0 to %d", path, name,
                   (long long)wide[i], (long long)i, INT32_MAX);
        values[i] = (int32_t)wide[i];
    }
    return ND_OK;
}

bool nd_hdf5_shape(int64_t dataset, int64_t shape[2])
{
    hsize_t extents[2] = {0, 0};
    ND_HDF5_HANDLE space = H5Dget_space(dataset);
    const bool matrix = H5Sget_simple_extent_ndims(space) == 2 &&
                        H5Sget_simple_extent_dims(space, extents, NULL) == 2;
    for (int d = 0; d < 2; d++)
        shape[d] = (int64_t)extents[d];
    return matrix;
}

bool nd_hdf5_put_text(int64_t object, const char *name, const char *text)
{
    ND_HDF5_HANDLE space = H5Screate(H5S_SCALAR), type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, strlen(text) + 1);
    ND_HDF5_HANDLE attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    return H5Awrite(attribute, type, text) >= 0;
}

static nd_status read_matrix(hid_t dataset, const char *path, const char *name, int32_t **values,
                             int64_t *rows, int64_t *cols)
{
    int64_t shape[2];
    ND_HDF5_HANDLE type = H5Dget_type(dataset);
    ND_FAIL_IF(!nd_hdf5_shape(dataset, shape) || H5Tget_class(type) != H5T_INTEGER ||
                   shape[0] == 0 || shape[1] < 2 || shape[0] > INT32_MAX || shape[1] > INT32_MAX,
               ND_EDATA, "%s: %s is not a matrix of integers [batch, seq_length + 1]", path, name);
    *rows = shape[0];
    *cols = shape[1];
    const int64_t count = *rows * *cols;
    ND_AUTOFREE int64_t *wide = reallocarray(NULL, (size_t)*rows, (size_t)*cols * sizeof *wide);
    *values = reallocarray(NULL, (size_t)*rows, (size_t)*cols * sizeof **values);
    ND_FAIL_IF(!wide || !*values, ND_ENOMEM, "no memory for %lld tokens of %s", (long long)count,
               path);
    ND_FAIL_IF(H5Dread(dataset, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, wide) < 0,
               ND_EDATA, "%s: HDF5 cannot read %s", path, name);
    return narrow(path, name, wide, count, *values);
}

nd_status nd_hdf5_read_tokens(const char *path, const char *name, int32_t **values, int64_t *rows,
                              int64_t *cols)
{
    ND_HDF5_LOCKED();
    nd_hdf5_start();
    ND_HDF5_HANDLE file = H5Fopen(path, H5F_ACC_RDONLY, nd_hdf5_access(false));
    ND_FAIL_IF(file < 0, ND_EDATA, "%s: not an HDF5 file that can be opened", path);
    ND_HDF5_HANDLE dataset = H5Dopen2(file, name, H5P_DEFAULT);
    ND_FAIL_IF(dataset < 0, ND_EDATA, "%s: holds no dataset %s", path, name);
    return read_matrix(dataset, path, name, values, rows, cols);
}

nd_status nd_hdf5_out_check(const char *path, const char *mark)
{
    ND_HDF5_LOCKED();
    struct stat info;
    nd_hdf5_start();
    ND_TRY(nd_durable_check(path, "\x89HDF\r\n\x1a\n", "an HDF5 file"));
    if (stat(path, &info) != 0 || info.st_size == 0)
        return ND_OK;
    ND_HDF5_HANDLE file = H5Fopen(path, H5F_ACC_RDONLY, nd_hdf5_access(false));
    return ND_CHECK(file >= 0 && H5Lexists(file, mark, H5P_DEFAULT) > 0, ND_ECONFIG,
                    "%s: this HDF5 file holds no %s and is not replaced by one that does; move it "
                    "elsewhere, or give another name",
                    path, mark);
}

nd_status nd_hdf5_out_create(const char *path, const char *mark, nd_hdf5_out **out)
{
    ND_HDF5_LOCKED();
    ND_FAIL_IF(strlen(path) >= PATH_LONGEST, ND_EIO, "%.80s...: the path is too long", path);
    ND_TRY(nd_hdf5_out_check(path, mark));
    ND_TRY(nd_durable_prepare(path));
    nd_hdf5_out *o = calloc(1, sizeof *o);
    ND_FAIL_IF(!o, ND_ENOMEM, "no memory to write %s", path);
    strcpy(o->path, path);
    int made;
    if (nd_temporary_create(path, o->temporary, &made) != ND_OK) {
        free(o);
        return ND_EIO;
    }
    close(made);
    o->file = H5Fcreate(o->temporary, H5F_ACC_TRUNC, H5P_DEFAULT, nd_hdf5_access(false));
    if (o->file < 0) {
        const nd_status status = ND_FAIL(ND_EIO, "%s: cannot be written", o->temporary);
        unlink(o->temporary);
        free(o);
        return status;
    }
    *out = o;
    return ND_OK;
}

nd_status nd_hdf5_out_write(nd_hdf5_out *o, const char *name, nd_cview values)
{
    ND_HDF5_LOCKED();
    const hsize_t shape[2] = {(hsize_t)values.rows, (hsize_t)values.cols};
    ND_HDF5_HANDLE space =
        values.rows == 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(2, shape, NULL);
    const hid_t type = values.dtype == ND_F64   ? H5T_NATIVE_DOUBLE
                       : values.dtype == ND_F32 ? H5T_NATIVE_FLOAT
                                                : H5T_NATIVE_INT32;
    ND_HDF5_HANDLE links = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    const hid_t dataset = H5Dcreate2(o->file, name, type, space, links, H5P_DEFAULT, H5P_DEFAULT);
    nd_status status = ND_CHECK(
        dataset >= 0 && H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data) >= 0,
        ND_EIO, "%s: HDF5 cannot write %s: %s", o->path, name, nd_hdf5_reason());
    /* HDF5 buffers small arrays until here, and H5Fclose does not repeat the error. */
    if (dataset >= 0 && H5Dclose(dataset) < 0 && status == ND_OK)
        status = ND_FAIL(ND_EIO, "%s: HDF5 cannot finish %s: %s", o->path, name, nd_hdf5_reason());
    return status;
}

nd_status nd_hdf5_out_close(nd_hdf5_out *o, bool keep)
{
    ND_HDF5_LOCKED();
    nd_status status = ND_OK;
    if (!o)
        return ND_OK;
    if (H5Fclose(o->file) < 0 && keep)
        status = ND_FAIL(ND_EIO, "%s: HDF5 cannot finish writing", o->temporary);
    if (keep && status == ND_OK)
        status = nd_durable_rename(o->temporary, o->path);
    else
        unlink(o->temporary);
    free(o);
    return status;
}

void nd_hdf5_version(char *text, size_t size)
{
    ND_HDF5_LOCKED();
    unsigned major = 0, minor = 0, release = 0;
    nd_hdf5_start(); /* before the first HDF5 call */
    H5get_libversion(&major, &minor, &release);
    snprintf(text, size, "%u.%u.%u", major, minor, release);
}
