#include "hopper_emulation.h"

#include "hopper.cuh"

#include "cuda_backend.h"
#include "int8_product.cuh"

#include <stdio.h>
#include <stdlib.h>
#include <unordered_map>
#include <vector>

namespace
{

/* Before a block's dynamic shared memory there may be static one. */
const uint32_t STATIC_BYTES = 384;

struct copy {
    unsigned char *tile;
    nd_tensor_map map;
    int column, row;
};

struct barrier {
    int arrivals, arrived;
    int64_t bytes; /* announced and not there */
    uint32_t phase;
    std::vector<copy> copies;
};

struct product {
    int columns;
    int32_t *sums;
    uint64_t left, right;
    bool add;
    int group;
};

struct thread_products {
    std::vector<product> waiting;
    int group;
};

std::unordered_map<const uint64_t *, barrier> barriers;
std::unordered_map<const nd_emulated_place *, thread_products> products;
int mistake;

void fail(const char *what)
{
    fprintf(stderr, "emulation: %s\n", what);
    abort();
}

barrier &barrier_at(const uint64_t *at)
{
    const auto found = barriers.find(at);
    if (found == barriers.end())
        fail("a barrier that was not initialized");
    return found->second;
}

void end_phase_if_complete(barrier &b)
{
    if (b.arrived == b.arrivals && b.bytes == 0) {
        b.arrived = 0;
        b.phase++;
    }
}

/* The swizzle of 128 bytes: bits 4-6 of an address with bits 7-9. */
uint32_t swizzled(uint32_t address)
{
    return address ^ (address >> 7 & 7) << 4;
}

unsigned char *memory_at(uint32_t address)
{
    return nd_emulated_shared() + (address - STATIC_BYTES);
}

void deliver(barrier &b, const copy &c)
{
    const uint32_t to = nd_shared_address(c.tile);
    for (int r = 0; r < c.map.box; r++)
        for (int i = 0; i < ND_SWIZZLED_BYTES; i++) {
            const int64_t row = c.row + r, column = c.column + i;
            const bool inside = row < c.map.rows && column < c.map.width;
            *memory_at(swizzled(to + (uint32_t)(r * ND_SWIZZLED_BYTES + i))) =
                inside ? c.map.x[row * c.map.width + column] : 0;
        }
    b.bytes -= (int64_t)c.map.box * ND_SWIZZLED_BYTES;
    if (b.bytes < 0)
        fail("more bytes came than were announced");
}

void deliver_all(barrier &b)
{
    for (const copy &c : b.copies)
        deliver(b, c);
    b.copies.clear();
    end_phase_if_complete(b);
}

/* 32 bytes of row `row` of an operand, as its description says where they are. */
void operand_row(uint64_t operand, int row, int8_t out[32])
{
    const uint32_t start = (uint32_t)(operand & 0x3fff) << 4;
    const uint32_t eight_rows = (uint32_t)(operand >> 32 & 0x3fff) << 4;
    if (operand >> 62 != 1 || (operand >> 49 & 7) != 0)
        fail("an operand without the swizzle of 128 bytes");
    for (uint32_t i = 0; i < 32; i += 16) {
        const uint32_t at = start + (uint32_t)row / 8 * eight_rows + (uint32_t)row % 8 * 128 + i;
        memcpy(out + i, memory_at(swizzled(at)), 16);
    }
}

void multiply(const product &p)
{
    const int thread = (int)threadIdx.x, lane = thread % 32;
    int8_t left[2][32], right[32];
    for (int half = 0; half < 2; half++)
        operand_row(p.left, thread / 32 % 4 * 16 + lane / 4 + 8 * half, left[half]);
    for (int column = 0; column < p.columns / 4; column++) {
        const int from = column / 2 * 4 + column % 2; /* of this thread's sums */
        operand_row(p.right, column / 2 * 8 + lane % 4 * 2 + column % 2, right);
        for (int half = 0; half < 2; half++) {
            int32_t sum = 0;
            for (int i = 0; i < 32; i++)
                sum += left[half][i] * right[i];
            if (mistake == ND_EMULATED_WRONG_SUMS)
                sum = -sum;
            int32_t &to = p.sums[from + 2 * half];
            to = p.add ? to + sum : sum;
        }
    }
}

} // namespace

void nd_emulated_make_mistake(int kind)
{
    mistake = kind;
}

uint32_t nd_shared_address(const void *pointer)
{
    return (uint32_t)(static_cast<const unsigned char *>(pointer) - nd_emulated_shared()) +
           STATIC_BYTES;
}

void nd_barrier_init(uint64_t *at, int arrivals)
{
    barriers[at] = barrier();
    barriers[at].arrivals = arrivals;
    products.clear(); /* a block begins */
}

void nd_barrier_arrive(uint64_t *at)
{
    barrier &b = barrier_at(at);
    if (++b.arrived > b.arrivals)
        fail("more threads arrived at a barrier than it counts");
    end_phase_if_complete(b);
}

void nd_barrier_expect(uint64_t *at, int bytes)
{
    barrier_at(at).bytes += bytes;
    nd_barrier_arrive(at);
}

bool nd_barrier_wait(uint64_t *at, uint32_t parity)
{
    if (mistake == ND_EMULATED_NO_COPIES)
        return false;
    nd_emulated_wait_until([=] {
        barrier &b = barrier_at(at);
        if (!b.copies.empty())
            deliver_all(b);
        return (b.phase & 1) != parity;
    });
    return true;
}

void nd_tile_load(void *tile, const nd_tensor_map *map, uint64_t *at, int column, int row)
{
    if (nd_shared_address(tile) % ND_SWIZZLE_ATOM != 0)
        fail("a swizzled tile that is not aligned");
    barrier &b = barrier_at(at);
    b.copies.push_back({static_cast<unsigned char *>(tile), *map, column, row});
    if (nd_emulated_random() % 2 == 0)
        deliver_all(b);
}

void nd_warpgroup_commit()
{
    products[&nd_emulated_here()].group++;
    __syncwarp(); /* the instructions are a whole warp's */
}

void nd_emulated_products_wait(int groups)
{
    thread_products &mine = products[&nd_emulated_here()];
    size_t left = 0;
    for (const product &p : mine.waiting) {
        if (p.group < mine.group - groups)
            multiply(p);
        else
            mine.waiting[left++] = p;
    }
    mine.waiting.resize(left);
    __syncwarp();
}

void nd_emulated_product(int columns, int32_t *sums, uint64_t left, uint64_t right, bool add)
{
    thread_products &mine = products[&nd_emulated_here()];
    mine.waiting.push_back({columns, sums, left, right, add, mine.group});
}

nd_status nd_cuda_tensor_map(nd_cuda *, nd_tensor_map *map, const void *x, int64_t rows,
                             int64_t width, int box)
{
    ND_REQUIRE((uintptr_t)x % 16 == 0 && width % 16 == 0 && rows > 0 && width > 0);
    ND_REQUIRE(box > 0 && box <= 256);
    *map = {static_cast<const unsigned char *>(x), rows, width, box};
    return ND_OK;
}

extern "C" nd_status nd_emulated_backend_create_checked(const nd_cuda_options *options,
                                                        nd_backend **backend)
{
    ND_TRY(nd_cuda_backend_create(options, backend));
    if (options->int8 != ND_CUDA_INT8_MMA)
        nd_cuda_hopper_of(nd_cuda_of(*backend))->state = ND_HOPPER_EXACT;
    return ND_OK;
}
