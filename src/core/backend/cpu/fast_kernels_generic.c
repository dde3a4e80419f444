/* Kernels for the compiler's base target, and the choice between the tables. */
#define ND_KERNEL_ISA "generic"
#include "core/backend/cpu/fast_kernels_body.h"

#include <string.h>

const nd_fast_kernels *nd_fast_kernels_generic(void)
{
    return &table;
}

static bool cpu_has_avx512(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("fma");
#else
    return false;
#endif
}

static bool cpu_has_avx2(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return false;
#endif
}

const nd_fast_kernels *nd_fast_kernels_for(const char *isa)
{
    const bool any = !isa || strcmp(isa, "auto") == 0;
    const nd_fast_kernels *found = NULL;
    if ((any || strcmp(isa, "avx512") == 0) && cpu_has_avx512())
        found = nd_fast_kernels_avx512();
    if (!found && (any || strcmp(isa, "avx2") == 0) && cpu_has_avx2())
        found = nd_fast_kernels_avx2();
    if (!found && (any || strcmp(isa, "generic") == 0))
        found = nd_fast_kernels_generic();
    return found;
}
