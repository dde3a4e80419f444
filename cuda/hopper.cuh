/* Instructions of compute capability 9.0 that the int8 product of int8_hopper.cu uses: barriers in
 * shared memory that count bytes, tiles copied by the tensor memory accelerator (TMA), and products
 * of a warpgroup (128 threads) with operands in shared memory. They exist for sm_90a only;
 * elsewhere the kernel is empty and never launched. tests/cuda/emulation implements the same
 * functions on the host. */
#pragma once

#include "context.cuh"

/* seconds, where microseconds are expected */
static const uint64_t ND_BARRIER_NANOSECONDS = 4000000000;

enum {
    ND_WARPGROUP = 128,
    ND_SWIZZLED_BYTES = 128,  /* of a row of a tile: pieces of 16 bytes are permuted within them */
    ND_SWIZZLE_ATOM = 8 * 128 /* eight rows; tiles start at multiples of it */
};

#ifdef ND_CUDA_EMULATED
#include "hopper_emulation.h"
#define ND_HOPPER 1
#else
#include <cuda.h>

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define ND_HOPPER 1
#else
#define ND_HOPPER 0
#endif
#define ND_GRID_CONSTANT __grid_constant__

typedef CUtensorMap nd_tensor_map;

#if ND_HOPPER

/* A phase ends when `arrivals` threads have arrived and all announced bytes were copied. */
__device__ __forceinline__ void nd_barrier_init(uint64_t *barrier, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(nd_shared_address(barrier)),
                 "r"(arrivals)
                 : "memory");
}

/* Makes initialized barriers visible to the copies that count on them. */
__device__ __forceinline__ void nd_barrier_publish()
{
    asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
    asm volatile("fence.proxy.async;\n" ::: "memory");
}

__device__ __forceinline__ void nd_barrier_arrive(uint64_t *barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(nd_shared_address(barrier))
                 : "memory");
}

/* Arrives, and announces so many bytes in the current phase. */
__device__ __forceinline__ void nd_barrier_expect(uint64_t *barrier, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(
                     nd_shared_address(barrier)),
                 "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ bool nd_barrier_try(uint64_t *barrier, uint32_t parity)
{
    uint32_t passed;
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; "
                 "selp.u32 %0, 1, 0, p; }\n"
                 : "=r"(passed)
                 : "r"(nd_shared_address(barrier)), "r"(parity)
                 : "memory");
    return passed != 0;
}

__device__ __forceinline__ uint64_t nd_nanoseconds()
{
    uint64_t now;
    asm volatile("mov.u64 %0, %globaltimer;\n" : "=l"(now));
    return now;
}

/* Waits for the end of the phase of this parity (0 first). Returns false when it does not end
 * within seconds, so that a bug ends the kernel instead of hanging the device. */
__device__ __forceinline__ bool nd_barrier_wait(uint64_t *barrier, uint32_t parity)
{
    if (nd_barrier_try(barrier, parity))
        return true;
    const uint64_t begin = nd_nanoseconds();
    while (!nd_barrier_try(barrier, parity))
        if (nd_nanoseconds() - begin > ND_BARRIER_NANOSECONDS)
            return false;
    return true;
}

/* Copies rows from `row` on of the map's matrix, 128 bytes of each from `column` on, zeros outside,
 * to a swizzled tile; all bytes, also those outside, count on the barrier. One thread calls it. */
__device__ __forceinline__ void nd_tile_load(void *tile, const nd_tensor_map *map,
                                             uint64_t *barrier, int column, int row)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4}], [%2];\n" ::"r"(nd_shared_address(tile)),
                 "l"(map), "r"(nd_shared_address(barrier)), "r"(column), "r"(row)
                 : "memory");
}

/* Required before the first product after other accesses to the accumulators. */
__device__ __forceinline__ void nd_warpgroup_arrive()
{
    asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
}

__device__ __forceinline__ void nd_warpgroup_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}

/* Waits until at most GROUPS committed groups of products are in flight. */
template <int GROUPS> __device__ __forceinline__ void nd_warpgroup_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(GROUPS) : "memory");
}

/* Registers per thread, a multiple of 8: one warpgroup releases what another may acquire. */
template <int COUNT> __device__ __forceinline__ void nd_registers_give()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(COUNT));
}

template <int COUNT> __device__ __forceinline__ void nd_registers_take()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(COUNT));
}

#define ND_REGISTERS4(d, i) "+r"(d[i]), "+r"(d[(i) + 1]), "+r"(d[(i) + 2]), "+r"(d[(i) + 3])
#define ND_REGISTERS16(d, i)                                                                       \
    ND_REGISTERS4(d, i), ND_REGISTERS4(d, (i) + 4), ND_REGISTERS4(d, (i) + 8),                     \
        ND_REGISTERS4(d, (i) + 12)

/* sums [64, N] (+)= left [64, 32] right [N, 32] transposed, int8 in shared memory, by the four
 * warps of a warpgroup, asynchronously. A thread has rows 16 (warp % 4) + lane / 4 (+ 8) and
 * columns 8 j + 2 (lane % 4) (+ 1): sums[4 j .. 4 j + 3] = (row, column), (row, column + 1), (row +
 * 8, column), (row + 8, column + 1). */
template <int N>
__device__ __forceinline__ void nd_warpgroup_product(int32_t sums[N / 2], uint64_t left,
                                                     uint64_t right, bool add);

/* clang-format off */
template <>
__device__ __forceinline__ void nd_warpgroup_product<256>(int32_t sums[128], uint64_t left,
                                                          uint64_t right, bool add)
{
    asm volatile(
        "{ .reg .pred p; setp.ne.b32 p, %130, 0; "
        "wgmma.mma_async.sync.aligned.m64n256k32.s32.s8.s8 "
        "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15, "
        "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31, "
        "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47, "
        "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63, "
        "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79, "
        "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95, "
        "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111, "
        "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127}, "
        "%128, %129, p; }\n"
        : ND_REGISTERS16(sums, 0), ND_REGISTERS16(sums, 16), ND_REGISTERS16(sums, 32),
          ND_REGISTERS16(sums, 48), ND_REGISTERS16(sums, 64), ND_REGISTERS16(sums, 80),
          ND_REGISTERS16(sums, 96), ND_REGISTERS16(sums, 112)
        : "l"(left), "l"(right), "r"((int)add));
}

template <>
__device__ __forceinline__ void nd_warpgroup_product<192>(int32_t sums[96], uint64_t left,
                                                          uint64_t right, bool add)
{
    asm volatile(
        "{ .reg .pred p; setp.ne.b32 p, %98, 0; "
        "wgmma.mma_async.sync.aligned.m64n192k32.s32.s8.s8 "
        "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15, "
        "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31, "
        "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47, "
        "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63, "
        "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79, "
        "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95}, "
        "%96, %97, p; }\n"
        : ND_REGISTERS16(sums, 0), ND_REGISTERS16(sums, 16), ND_REGISTERS16(sums, 32),
          ND_REGISTERS16(sums, 48), ND_REGISTERS16(sums, 64), ND_REGISTERS16(sums, 80)
        : "l"(left), "l"(right), "r"((int)add));
}
/* clang-format on */

#endif
#endif

#if ND_HOPPER || !defined(__CUDA_ARCH__)

/* The descriptor of an operand: the address of 32 bytes of its first row in a swizzled tile. In
 * units of 16 bytes: the address in bits 0-13, the leading offset (unused with this swizzle) in
 * 16-29, the distance between groups of eight rows in 32-45; the 128-byte swizzle is value 1 in
 * bits 62-63. */
__device__ __forceinline__ uint64_t nd_operand(const void *tile)
{
    return (uint64_t)((nd_shared_address(tile) & 0x3ffff) >> 4) | (uint64_t)1 << 16 |
           (uint64_t)(ND_SWIZZLE_ATOM >> 4) << 32 | (uint64_t)1 << 62;
}

#endif

/* Creates the map of x [rows, width] in bytes, width a multiple of 16 and x aligned to 16, for
 * boxes of `box` rows (at most 256). Errors: ND_EINTERNAL when the driver rejects it. */
nd_status nd_cuda_tensor_map(nd_cuda *cuda, nd_tensor_map *map, const void *x, int64_t rows,
                             int64_t width, int box);
