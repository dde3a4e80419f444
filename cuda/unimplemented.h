/* The table that a backend starts from: every op says that it is missing. */
#pragma once

#include "core/backend/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

void nd_unimplemented_ops(nd_backend_ops *ops);

/* How many ops are still missing, or empty. */
int nd_unimplemented_count(const nd_backend_ops *ops);

#ifdef __cplusplus
}
#endif
