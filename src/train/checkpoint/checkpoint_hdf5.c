#include "train/checkpoint/checkpoint_hdf5.h"

#include "data/shards/hdf5_arrays.h"
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

static bool has_form(hid_t dataset, nd_cview values)
{
    ND_HDF5_HANDLE type = H5Dget_type(dataset);
    int64_t shape[2];
    return nd_hdf5_shape(dataset, shape) && shape[0] == values.rows && shape[1] == values.cols &&
           H5Tequal(type, type_of(values.dtype, true)) > 0;
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
    ND_HDF5_HANDLE space = H5Screate_simple(2, shape, NULL);
    ND_HDF5_HANDLE links = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    ND_HDF5_HANDLE properties = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_obj_track_times(properties, false); /* equal states make equal files */
    return H5Dcreate2(file->file, name, type_of(values.dtype, true), space, links, properties,
                      H5P_DEFAULT);
}

nd_status nd_checkpoint_h5_write(nd_checkpoint_h5 *file, const char *name, nd_cview values)
{
    ND_HDF5_LOCKED();
    hid_t dataset = open_existing(file, name, values);
    const bool created = dataset < 0;
    if (created)
        dataset = create_dataset(file, name, values);
    const bool written =
        dataset >= 0 &&
        H5Dwrite(dataset, type_of(values.dtype, false), H5S_ALL, H5S_ALL, H5P_DEFAULT,
                 values.data) >= 0 &&
        (!created || nd_hdf5_put_text(dataset, "dtype", nd_dtype_name(values.dtype)));
    nd_status status = ND_CHECK(written, ND_ECHECKPOINT, "%s: HDF5 cannot write %s: %s", file->path,
                                name, nd_hdf5_reason());
    /* Small tensors are buffered until here, and H5Fclose does not repeat an error. */
    if (dataset >= 0 && H5Dclose(dataset) < 0 && status == ND_OK)
        status = ND_FAIL(ND_ECHECKPOINT, "%s: HDF5 cannot finish %s: %s", file->path, name,
                         nd_hdf5_reason());
    return status;
}

nd_status nd_checkpoint_h5_read(nd_checkpoint_h5 *file, const char *name, nd_view values)
{
    ND_HDF5_LOCKED();
    ND_HDF5_HANDLE dataset = H5Dopen2(file->file, name, H5P_DEFAULT);
    ND_FAIL_IF(dataset < 0, ND_ECHECKPOINT, "%s: holds no tensor %s", file->path, name);
    int64_t shape[2];
    ND_FAIL_IF(!nd_hdf5_shape(dataset, shape) || shape[0] != values.rows || shape[1] != values.cols,
               ND_ECHECKPOINT, "%s: %s has shape [%lld, %lld], expected [%lld, %lld]", file->path,
               name, (long long)shape[0], (long long)shape[1], (long long)values.rows,
               (long long)values.cols);
    return ND_CHECK(H5Dread(dataset, type_of(values.dtype, false), H5S_ALL, H5S_ALL, H5P_DEFAULT,
                            values.data) >= 0,
                    ND_ECHECKPOINT, "%s: HDF5 cannot read %s", file->path, name);
}
