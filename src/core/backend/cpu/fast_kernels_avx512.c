/* Kernels for AVX-512, used only if the CPU has it. */
#define ND_KERNEL_ISA "avx512"
#include "core/backend/cpu/fast_kernels_body.h"

#ifdef __AVX512F__
const nd_fast_kernels *nd_fast_kernels_avx512(void)
{
    return &table;
}
#else
const nd_fast_kernels *nd_fast_kernels_avx512(void)
{
    return 0;
}
#endif
