/* Kernels for AVX-512 with its instructions for bf16, used only if the CPU has them. */
#define ND_KERNEL_ISA "avx512_bf16"
#include "core/backend/cpu/fast_kernels_body.h"

#ifdef __AVX512BF16__
const nd_fast_kernels *nd_fast_kernels_avx512_bf16(void)
{
    return &table;
}
#else
const nd_fast_kernels *nd_fast_kernels_avx512_bf16(void)
{
    return 0;
}
#endif
