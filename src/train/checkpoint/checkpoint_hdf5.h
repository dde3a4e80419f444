/* The tensors of one checkpoint file. The only place outside src/data that calls HDF5. */
#pragma once

#include "core/base/error.h"
#include "core/base/view.h"

typedef struct nd_checkpoint_h5 nd_checkpoint_h5;

/* A new file, replacing one of that name. Errors: ND_ECHECKPOINT naming the file. */
nd_status nd_checkpoint_h5_create(const char *path, nd_checkpoint_h5 **file);
/* To write more into one. */
nd_status nd_checkpoint_h5_append(const char *path, nd_checkpoint_h5 **file);
nd_status nd_checkpoint_h5_open(const char *path, nd_checkpoint_h5 **file);

/* Closes; after writing, errors that appear only now are returned. */
nd_status nd_checkpoint_h5_close(nd_checkpoint_h5 *file);

/* Writes values (host memory) as the dataset `name`, groups made as needed. f32 is stored as float,
 * i8 and u8 as integers, bf16 as uint16 bit patterns, with the attribute dtype. */
nd_status nd_checkpoint_h5_write(nd_checkpoint_h5 *file, const char *name, nd_cview values);

/* Reads the dataset `name`, which must have the dtype and shape of `values`. */
nd_status nd_checkpoint_h5_read(nd_checkpoint_h5 *file, const char *name, nd_view values);
