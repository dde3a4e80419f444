/* What cuda/hopper.cuh declares, on the host. Copies of tiles arrive at once or, as often, only
 * when their barrier is waited for; products read shared memory when they are waited for, and only
 * then: so what is overwritten too early, or used before it was waited for, gives wrong numbers.
 * Addresses in shared memory are counted from where a block's begins, and operands of products are
 * found through the bits of their descriptions alone. */
#pragma once

#include "cuda_emulation.h"

#define ND_GRID_CONSTANT

struct nd_tensor_map {
    const unsigned char *x;
    int64_t rows, width;
    int box;
};

uint32_t nd_shared_address(const void *pointer);
void nd_barrier_init(uint64_t *barrier, int arrivals);
static inline void nd_barrier_publish() {}
void nd_barrier_arrive(uint64_t *barrier);
void nd_barrier_expect(uint64_t *barrier, int bytes);
bool nd_barrier_wait(uint64_t *barrier, uint32_t parity);
void nd_tile_load(void *tile, const nd_tensor_map *map, uint64_t *barrier, int column, int row);

static inline void nd_warpgroup_arrive() {}
void nd_warpgroup_commit();
void nd_emulated_products_wait(int groups);
template <int GROUPS> void nd_warpgroup_wait()
{
    nd_emulated_products_wait(GROUPS);
}
void nd_emulated_product(int columns, int32_t *sums, uint64_t left, uint64_t right, bool add);
template <int N>
void nd_warpgroup_product(int32_t sums[N / 2], uint64_t left, uint64_t right, bool add)
{
    nd_emulated_product(N, sums, left, right, add);
}
template <int COUNT> void nd_registers_give() {}
template <int COUNT> void nd_registers_take() {}

/* What may go wrong on a device: the next blocks' products are of wrong signs, or their copies
 * never arrive. */
enum nd_emulated_mistake { ND_EMULATED_RIGHT, ND_EMULATED_WRONG_SUMS, ND_EMULATED_NO_COPIES };
extern "C" void nd_emulated_make_mistake(int mistake);
