/* The fast layer: ops that replace the reference's where this machine has something faster. */
#pragma once

#include "core/backend/cpu/fast_context.h"

/* Replaces the slots that have a fast version for this machine and `isa`. A fast op that meets a
 * dtype or shape it does not cover (f64, say) calls the reference. */
nd_status nd_cpu_fast_create(const nd_cpu_backend_options *options, nd_backend_ops *ops,
                             nd_cpu_fast **fast);
void nd_cpu_fast_destroy(nd_cpu_fast *fast);

/* Describes what the fast layer runs on. */
void nd_cpu_fast_describe(const nd_cpu_fast *fast, nd_backend_traits *traits);

/* The threads it was created for; how many of them ops use from now on. */
int nd_cpu_fast_threads(const nd_cpu_fast *fast);
void nd_cpu_fast_set_threads(nd_cpu_fast *fast, int threads);

/* Bytes of workspace that its ops have allocated so far. */
size_t nd_cpu_fast_workspace_bytes(const nd_cpu_fast *fast);
