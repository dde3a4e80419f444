/* Kernels for AVX2, used only if the CPU has it. */
#define ND_KERNEL_ISA "avx2"
#include "core/backend/cpu/fast_kernels_body.h"

#ifdef __AVX2__
const nd_fast_kernels *nd_fast_kernels_avx2(void)
{
    return &table;
}
#else
const nd_fast_kernels *nd_fast_kernels_avx2(void)
{
    return 0;
}
#endif
