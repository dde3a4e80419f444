/* The two layers of the CPU backend, private to src/core/backend/cpu. */
#ifndef ND_CORE_BACKEND_CPU_CPU_BACKEND_H
#define ND_CORE_BACKEND_CPU_CPU_BACKEND_H

#include "core/backend/backend.h"

/* Every slot as a plain loop with double accumulation over any float dtype, f64 included. */
void nd_cpu_fill_reference(nd_backend_ops *ops);

/* The fast layer's own state (oneDNN engine and primitives, thread workspaces). */
typedef struct nd_cpu_fast nd_cpu_fast;

/* Replaces the slots that have a fast version for this machine and `isa`. A fast op that meets a
 * dtype or shape it does not cover (f64, say) calls the reference. */
nd_status nd_cpu_fast_create(const nd_cpu_backend_options *options, nd_backend_ops *ops,
                             nd_cpu_fast **fast);
void nd_cpu_fast_destroy(nd_cpu_fast *fast);

/* What the fast layer runs on. */
void nd_cpu_fast_describe(const nd_cpu_fast *fast, nd_backend_traits *traits);

/* Bytes that its ops have taken beyond their arguments so far. */
size_t nd_cpu_fast_workspace_bytes(const nd_cpu_fast *fast);

/* The fast state behind a CPU backend. */
nd_cpu_fast *nd_cpu_fast_of(const nd_backend *backend);

#endif
