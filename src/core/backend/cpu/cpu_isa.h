/* What this process may use of the CPU: one limit for the project's own kernels and for oneDNN. */
#pragma once

#include "core/backend/backend.h"

/* Limits oneDNN to `requested` and returns the limit in effect. AUTO is the best of this CPU, or
 * less where DNNL_MAX_CPU_ISA (ONEDNN_MAX_CPU_ISA) says so. The limit holds for the whole process
 * and can no longer change once oneDNN has multiplied. Errors: ND_ECONFIG when the CPU lacks
 * `requested` or another limit is in effect, naming both. */
nd_status nd_cpu_isa_apply(nd_cpu_isa requested, nd_cpu_isa *effective);

/* The name of an instruction set in the configuration. */
const char *nd_cpu_isa_name(nd_cpu_isa isa);

/* Whether products of bf16 are faster than those of f32 with `isa` on this CPU: with AMX, and where
 * vdpbf16ps makes twice the products of an FMA in the same time. Intel's CPUs start two FMAs a
 * cycle but one vdpbf16ps, so that packing its operands is only lost. */
bool nd_cpu_isa_gains_by_bf16(nd_cpu_isa isa);
