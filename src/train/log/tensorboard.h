/* TensorBoard event files: records of length, masked CRC-32C of the length, a protobuf Event,
 * masked CRC-32C of the event. */
#pragma once

#include "core/base/error.h"

#include <stdint.h>

/* How the names of event files begin. */
#define ND_EVENTS_PREFIX "events.out.tfevents."

typedef struct nd_tensorboard nd_tensorboard;

typedef struct nd_scalar {
    const char *tag;
    double value;
} nd_scalar;

/* Starts a new event file in `directory`, created if necessary; its name sorts after those of
 * existing ones. Removes from existing files events of steps after `last_step` and incomplete
 * records; the new file then begins with a mark of the restart. The caller closes it. Errors:
 * ND_EIO naming the file. */
nd_status nd_tensorboard_open(const char *directory, int64_t last_step,
                              nd_tensorboard **tensorboard);
void nd_tensorboard_close(nd_tensorboard *tensorboard);

/* Writes one event with these scalars and flushes it. */
nd_status nd_tensorboard_write(nd_tensorboard *tensorboard, int64_t step, const nd_scalar *scalars,
                               int count);
