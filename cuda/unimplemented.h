/* The initial table of a backend, in which every op returns an "unimplemented" error. */
#pragma once

#include "core/backend/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

void nd_unimplemented_ops(nd_backend_ops *ops);

/* The number of ops that are still unimplemented or NULL. */
int nd_unimplemented_count(const nd_backend_ops *ops);

#ifdef __cplusplus
}
#endif
