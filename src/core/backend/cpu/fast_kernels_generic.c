/* Kernels for the compiler's base target, and the choice between the tables. */
#define ND_KERNEL_ISA "generic"
#include "core/backend/cpu/cpu_isa.h"
#include "core/backend/cpu/fast_kernels_body.h"

const nd_fast_kernels *nd_fast_kernels_generic(void)
{
    return &table;
}

const nd_fast_kernels *nd_fast_kernels_for(nd_cpu_isa isa)
{
    const nd_fast_kernels *found = NULL;
    if (isa >= ND_CPU_ISA_AVX512_BF16)
        found = nd_fast_kernels_avx512_bf16();
    if (!found && isa >= ND_CPU_ISA_AVX512)
        found = nd_fast_kernels_avx512();
    if (!found && isa >= ND_CPU_ISA_AVX2)
        found = nd_fast_kernels_avx2();
    return found ? found : nd_fast_kernels_generic();
}

const nd_fast_kernels *nd_fast_kernels_in_force(void)
{
    nd_cpu_isa isa = ND_CPU_ISA_GENERIC;
    (void)nd_cpu_isa_apply(ND_CPU_ISA_AUTO, &isa); /* AUTO is never refused */
    return nd_fast_kernels_for(isa);
}
