#include "train/checkpoint/checkpoint_hdf5.h"

#include "data/shards/hdf5_errors.h"
#include "data/shards/hdf5_lock.h"

#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct nd_checkpoint_h5 {
    hid_t file;
    bool existed; /* datasets of the names to write may be there */
    char path[4096];
};

static hid_t type_of(nd_dtype dtype, bool stored)
{
    switch (dtype) {
    case ND_F32:
        return stored ? H5T_IEEE_F32LE : H5T_NATIVE_FLOAT;
    case ND_I8:
        return stored ? H5T_STD_I8LE : H5T_NATIVE_INT8;
    case ND_U8:
        return stored ? H5T_STD_U8LE : H5T_NATIVE_UINT8;
    default:
        return stored ? H5T_STD_U16LE : H5T_NATIVE_UINT16;
    }
}

static nd_status wrap(hid_t id, const char *path, const char *verb, nd_checkpoint_h5 **file)
{
    ND_FAIL_IF(id < 0, ND_ECHECKPOINT, "%s: HDF5 cannot %s this file: %s", path, verb,
               nd_hdf5_reason());
    nd_checkpoint_h5 *made = calloc(1, sizeof *made);
    if (!made) {
        H5Fclose(id);
        return ND_FAIL(ND_ENOMEM, "no memory to %s %s", verb, path);
    }
    made->file = id;
    snprintf(made->path, sizeof made->path, "%s", path);
    *file = made;
    return ND_OK;
}

nd_status nd_checkpoint_h5_create(const char *path, nd_checkpoint_h5 **file)
{
    ND_HDF5_LOCKED();
    nd_hdf5_start();
    return wrap(H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, nd_hdf5_access(false)), path, "create",
                file);
}

nd_status nd_checkpoint_h5_open(const char *path, nd_checkpoint_h5 **file)
{
    ND_HDF5_LOCKED();
    nd_hdf5_start();
    return wrap(H5Fopen(path, H5F_ACC_RDONLY, nd_hdf5_access(false)), path, "open", file);
}

nd_status nd_checkpoint_h5_append(const char *path, nd_checkpoint_h5 **file)
{
    ND_HDF5_LOCKED();
    nd_hdf5_start();
    ND_TRY(wrap(H5Fopen(path, H5F_ACC_RDWR, nd_hdf5_access(false)), path, "open", file));
    (*file)->existed = true;
    return ND_OK;
}

nd_status nd_checkpoint_h5_close(nd_checkpoint_h5 *file)
{
    ND_HDF5_LOCKED();
    if (!file)
        return ND_OK;
    nd_status status =
        ND_CHECK(H5Fflush(file->file, H5F_SCOPE_GLOBAL) >= 0, ND_ECHECKPOINT,
                 "%s: HDF5 cannot finish writing this file: %s", file->path, nd_hdf5_reason());
    if (H5Fclose(file->file) < 0 && status == ND_OK)
        status = ND_FAIL(ND_ECHECKPOINT, "%s: HDF5 cannot close this file: %s", file->path,
                         nd_hdf5_reason());
    free(file);
    return status;
}

static herr_t write_dtype(hid_t dataset, nd_dtype dtype)
{
    const char *name = nd_dtype_name(dtype);
    const hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, strlen(name) + 1);
    const hid_t attribute = H5Acreate2(dataset, "dtype", type, space, H5P_DEFAULT, H5P_DEFAULT);
    const herr_t wrote = H5Awrite(attribute, type, name);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
    return wrote;
}

static bool has_form(hid_t dataset, nd_cview values)
{
    const hid_t space = H5Dget_space(dataset), type = H5Dget_type(dataset);
    hsize_t shape[2];
    const bool same = H5Sget_simple_extent_ndims(space) == 2 &&
                      H5Sget_simple_extent_dims(space, shape, NULL) == 2 &&
                      shape[0] == (hsize_t)values.rows && shape[1] == (hsize_t)values.cols &&
                      H5Tequal(type, type_of(values.dtype, true)) > 0;
    H5Tclose(type);
    H5Sclose(space);
    return same;
}

/* The dataset `name` of an existing file to write over; one of another form is removed: negative,
 * as when there is none. */
static hid_t open_existing(const nd_checkpoint_h5 *file, const char *name, nd_cview values)
{
    const hid_t dataset = file->existed ? H5Dopen2(file->file, name, H5P_DEFAULT) : -1;
    if (dataset < 0 || has_form(dataset, values))
        return dataset;
    H5Dclose(dataset);
    H5Ldelete(file->file, name, H5P_DEFAULT);
    return -1;
}

static hid_t create_dataset(const nd_checkpoint_h5 *file, const char *name, nd_cview values)
{
    const hsize_t shape[2] = {(hsize_t)values.rows, (hsize_t)values.cols};
    const hid_t space = H5Screate_simple(2, shape, NULL);
    const hid_t links = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_obj_track_times(properties, false); /* equal states make equal files */
    const hid_t dataset = H5Dcreate2(file->file, name, type_of(values.dtype, true), space, links,
                                     properties, H5P_DEFAULT);
    H5Pclose(properties);
    H5Pclose(links);
    H5Sclose(space);
    return dataset;
}

nd_status nd_checkpoint_h5_write(nd_checkpoint_h5 *file, const char *name, nd_cview values)
{
    ND_HDF5_LOCKED();
    hid_t dataset = open_existing(file, name, values);
    const bool created = dataset < 0;
    if (created)
        dataset = create_dataset(file, name, values);
    herr_t failed = dataset < 0 ? -1 : 0;
    if (!failed)
        failed = H5Dwrite(dataset, type_of(values.dtype, false), H5S_ALL, H5S_ALL, H5P_DEFAULT,
                          values.data);
    if (failed >= 0 && created)
        failed = write_dtype(dataset, values.dtype);
    nd_status status = ND_CHECK(failed >= 0, ND_ECHECKPOINT, "%s: HDF5 cannot write %s: %s",
                                file->path, name, nd_hdf5_reason());
    /* Small tensors are buffered until here, and H5Fclose does not repeat an error. */
    if (dataset >= 0 && H5Dclose(dataset) < 0 && status == ND_OK)
        status = ND_FAIL(ND_ECHECKPOINT, "%s: HDF5 cannot finish %s: %s", file->path, name,
                         nd_hdf5_reason());
    return status;
}

nd_status nd_checkpoint_h5_read(nd_checkpoint_h5 *file, const char *name, nd_view values)
{
    ND_HDF5_LOCKED();
    const hid_t dataset = H5Dopen2(file->file, name, H5P_DEFAULT);
    ND_FAIL_IF(dataset < 0, ND_ECHECKPOINT, "%s: holds no tensor %s", file->path, name);
    const hid_t space = H5Dget_space(dataset);
    hsize_t shape[2] = {0, 0};
    nd_status status = ND_OK;
    if (H5Sget_simple_extent_ndims(space) != 2 ||
        H5Sget_simple_extent_dims(space, shape, NULL) != 2 || shape[0] != (hsize_t)values.rows ||
        shape[1] != (hsize_t)values.cols)
        status =
            ND_FAIL(ND_ECHECKPOINT, "%s: %s has shape [%llu, %llu], expected [%lld, %lld]",
                    file->path, name, (unsigned long long)shape[0], (unsigned long long)shape[1],
                    (long long)values.rows, (long long)values.cols);
    else if (H5Dread(dataset, type_of(values.dtype, false), H5S_ALL, H5S_ALL, H5P_DEFAULT,
                     values.data) < 0)
        status = ND_FAIL(ND_ECHECKPOINT, "%s: HDF5 cannot read %s", file->path, name);
    H5Sclose(space);
    H5Dclose(dataset);
    return status;
}
