/* TensorBoard event files: records of length, masked CRC-32C of the length, a protobuf Event, masked
 * CRC-32C of the event. */
#pragma once

#include "core/base/error.h"

#include <stdint.h>

typedef struct nd_tensorboard nd_tensorboard;

typedef struct nd_scalar {
    const char *tag;
    double value;
} nd_scalar;

/* Starts a new event file in `directory`, made when absent; its name comes after those of all that are
 * there. Where there are some, events of steps after `last_step` are taken out of them, with what a crash
 * cut off, and the new file begins with a mark of the restart. Errors: ND_EIO naming the file. */
nd_status nd_tensorboard_open(const char *directory, int64_t last_step,
                              nd_tensorboard **tensorboard);
void nd_tensorboard_close(nd_tensorboard *tensorboard);

/* One event with these scalars, flushed. */
nd_status nd_tensorboard_write(nd_tensorboard *tensorboard, int64_t step, const nd_scalar *scalars,
                               int count);
