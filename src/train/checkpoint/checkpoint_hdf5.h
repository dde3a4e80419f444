/* The tensors of one checkpoint file. No other code outside src/data calls HDF5. */
#pragma once

#include "core/base/error.h"
#include "core/base/view.h"

typedef struct nd_checkpoint_h5 nd_checkpoint_h5;

/* Create, or replace, a file; open one to add or replace datasets; open one to read. The caller
 * closes it. Errors: ND_ECHECKPOINT naming the file. */
nd_status nd_checkpoint_h5_create(const char *path, nd_checkpoint_h5 **file);
nd_status nd_checkpoint_h5_append(const char *path, nd_checkpoint_h5 **file);
nd_status nd_checkpoint_h5_open(const char *path, nd_checkpoint_h5 **file);

/* Closes the file; also returns errors of writing that appear only now. */
nd_status nd_checkpoint_h5_close(nd_checkpoint_h5 *file);

/* Writes values (host memory) as the dataset `name`, creating groups as needed. f32 is stored as
 * float, i8 and u8 as integers, bf16 as uint16 bit patterns, with the attribute dtype. Errors:
 * ND_ECHECKPOINT. */
nd_status nd_checkpoint_h5_write(nd_checkpoint_h5 *file, const char *name, nd_cview values);

/* Reads the dataset `name` of the dtype and shape of `values` (host). Errors: ND_ECHECKPOINT. */
nd_status nd_checkpoint_h5_read(nd_checkpoint_h5 *file, const char *name, nd_view values);
