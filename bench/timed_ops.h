/* Where the time of a backend goes: its ops wrapped in clocks. One backend at a time. */
#pragma once

#include "core/backend/backend.h"

/* From here on calls are timed; times so far are forgotten. */
void timed_ops_start(nd_backend *backend);

/* Writes seconds by operation since the start, and stops timing. */
enum {
#define OP(name, ...) TIMED_##name,
#include "core/backend/backend_ops.def"
#undef OP
    TIMED_OPS
};
void timed_ops_stop(nd_backend *backend, double seconds[TIMED_OPS]);

extern const char *const timed_op_names[TIMED_OPS];
