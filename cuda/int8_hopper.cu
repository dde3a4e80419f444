/* int8 x int8 -> int32 on the tensor cores of compute capability 9.0, scaled while it is stored.
 *
 * A persistent block processes several tiles. One thread of its first warpgroup copies slices of
 * 128 inputs of both operands (TMA), as far ahead as there is room; each of the other two
 * warpgroups multiplies half of the rows (wgmma) and stores them. A stage has two barriers: `full`
 * ends a phase when a slice has arrived, `empty` when all eight warps have multiplied it. Slices of
 * the next tile arrive while one is stored. */
#include "floats.cuh"
#include "hopper.cuh"
#include "int8_product.cuh"

namespace
{

enum {
    SLICE = 128, /* inputs of a stage */
    BLOCK = 3 * ND_WARPGROUP,
    CONSUMER_WARPS = 8,
    BAND = 16, /* rows of tiles processed together, so that operands are reused from L2 */
    PRODUCER_REGISTERS = 24,
    CONSUMER_REGISTERS = 240
};

/* Each multiplying warpgroup has `parts` times 64 rows of a tile: as many sums as a thread has
 * registers for, half as many if groups need a second set. Larger tiles load fewer bytes from L2
 * per operation, which is the limit: tensor cores at full speed need 37 bytes per cycle of about
 * 32. */
template <bool GROUPED> struct tile {
    static const int parts = GROUPED ? 1 : 2;
    static const int rows = 2 * 64 * parts, columns = 192;
    static const int stages = GROUPED ? 5 : 4;
    static const int left_bytes = rows * SLICE;
    static const int stage_bytes = left_bytes + columns * SLICE;
    static const int shared = ND_SWIZZLE_ATOM + stages * stage_bytes;
};

struct hopper_product {
    nd_floats y;
    const float *a, *s;
    int tokens, outputs, slices, group_slices, tiles;
    bool add;
    nd_cuda_fault *fault;
};

} // namespace

/* The origin of a tile; tiles are numbered down the rows of a band first. */
template <bool GROUPED>
__device__ __forceinline__ void place_tile(const hopper_product &p, int number, int *row,
                                           int *column)
{
    const int rows = (p.tokens + tile<GROUPED>::rows - 1) / tile<GROUPED>::rows;
    const int columns = (p.outputs + tile<GROUPED>::columns - 1) / tile<GROUPED>::columns;
    const int first = number / (BAND * columns) * BAND, within = number % (BAND * columns);
    const int height = rows - first < BAND ? rows - first : BAND;
    *row = (first + within % height) * tile<GROUPED>::rows;
    *column = within / height * tile<GROUPED>::columns;
}

#if ND_HOPPER

__device__ __forceinline__ void report_stop(const hopper_product &p)
{
    p.fault->kind = ND_FAULT_STOPPED;
}

__device__ __forceinline__ float2 &two_at(const hopper_product &p, int64_t at)
{
    return *reinterpret_cast<float2 *>(static_cast<float *>(p.y.data) + at);
}

/* Stores two columns of a row in f32. */
__device__ __forceinline__ void store_two(const hopper_product &p, int64_t at, float x, float y)
{
    const float2 before = p.add ? two_at(p, at) : make_float2(0.0f, 0.0f);
    two_at(p, at) = p.add ? make_float2(x + before.x, y + before.y) : make_float2(x, y);
}

/* The same in bf16, rounded but not stored. */
__device__ __forceinline__ uint32_t round_two(const hopper_product &p, int64_t at, bool inside,
                                              float x, float y)
{
    if (p.add && inside) {
        const uint32_t before =
            *reinterpret_cast<const uint32_t *>(static_cast<const uint16_t *>(p.y.data) + at);
        x += nd_float_of(before << 16);
        y += nd_float_of(before & 0xffff0000u);
    }
    return nd_pack_bf16(x, y);
}

/* Stores a thread's results from `row` and column `o` on (layout: nd_warpgroup_product). In bf16
 * two lanes exchange a word: each stores four columns, and four lanes 32 bytes of a row. */
template <bool GROUPED, bool NARROW>
__device__ __forceinline__ void store_results(const hopper_product &p, const int32_t *sums,
                                              const float *scaled, int row, int o)
{
    const int lane = (int)threadIdx.x % 32, odd = lane % 2;
    const float one = GROUPED ? 0.0f : *p.s;
    ND_UNROLL
    for (int half = 0; half < 2; half++) {
        const int t = row + 8 * half;
        const bool inside = t < p.tokens; /* for all four lanes of a row or none */
        const float factor = GROUPED ? 1.0f / 127.0f : inside ? one * (p.a[t] / 127.0f) : 0.0f;
        const int64_t first = (int64_t)t * p.outputs;
        const auto result = [&](int from) {
            return nd_product(GROUPED ? scaled[from] : (float)sums[from], factor);
        };
        ND_UNROLL
        for (int j = 0; !NARROW && j < tile<GROUPED>::columns / 8; j++) {
            const int column = o + 8 * j, from = 4 * j + 2 * half;
            if (inside && column < p.outputs)
                store_two(p, first + column, result(from), result(from + 1));
        }
        ND_UNROLL
        for (int j = 0; NARROW && j < tile<GROUPED>::columns / 8; j += 2) {
            uint32_t words[2];
            ND_UNROLL
            for (int next = 0; next < 2; next++) {
                const int column = o + 8 * (j + next), from = 4 * (j + next) + 2 * half;
                words[next] = round_two(p, first + column, inside && column < p.outputs,
                                        result(from), result(from + 1));
            }
            const uint32_t other = __shfl_xor_sync(0xffffffffu, odd ? words[0] : words[1], 1);
            const int column = o - lane % 4 * 2 + 8 * (j + odd) + lane % 4 / 2 * 4;
            if (inside && column < p.outputs)
                *reinterpret_cast<uint2 *>(static_cast<uint16_t *>(p.y.data) + first + column) =
                    odd ? make_uint2(other, words[1]) : make_uint2(words[0], other);
        }
    }
}

/* scaled += s sums, with the scales of `group` for the thread's two rows. */
__device__ __forceinline__ void scale_group(const hopper_product &p, float *scaled,
                                            const int32_t *sums, int count, int row, int group)
{
    float scale[2];
    ND_UNROLL
    for (int half = 0; half < 2; half++) {
        const int t = row + 8 * half;
        scale[half] = t < p.tokens ? p.s[(int64_t)group * p.tokens + t] : 0.0f;
    }
    ND_UNROLL
    for (int i = 0; i < count; i++)
        scaled[i] += scale[i / 2 % 2] * (float)sums[i];
}

template <bool GROUPED>
__device__ __forceinline__ void produce(const hopper_product &p, const nd_tensor_map *left,
                                        const nd_tensor_map *right, unsigned char *stages,
                                        uint64_t *full, uint64_t *empty)
{
    int stage = 0;
    uint32_t parity = 0;
    for (int number = (int)blockIdx.x; number < p.tiles; number += (int)gridDim.x) {
        int row, column;
        place_tile<GROUPED>(p, number, &row, &column);
        for (int slice = 0; slice < p.slices; slice++) {
            unsigned char *to = stages + stage * tile<GROUPED>::stage_bytes;
            if (!nd_barrier_wait(&empty[stage], parity ^ 1)) /* initially free */
                return report_stop(p);
            nd_barrier_expect(&full[stage], tile<GROUPED>::stage_bytes);
            nd_tile_load(to, left, &full[stage], slice * SLICE, row);
            nd_tile_load(to + tile<GROUPED>::left_bytes, right, &full[stage], slice * SLICE,
                         column);
            if (++stage == tile<GROUPED>::stages)
                stage = 0, parity ^= 1;
        }
    }
}

/* Begins the products of a slice; `fresh`: of new sums. */
template <bool GROUPED>
__device__ __forceinline__ void multiply(int32_t (*sums)[tile<GROUPED>::columns / 2],
                                         const unsigned char *left, const unsigned char *right,
                                         bool fresh)
{
    nd_warpgroup_arrive();
    ND_UNROLL
    for (int at = 0; at < SLICE; at += 32) {
        ND_UNROLL
        for (int part = 0; part < tile<GROUPED>::parts; part++)
            nd_warpgroup_product<tile<GROUPED>::columns>(sums[part],
                                                         nd_operand(left + 64 * part * SLICE + at),
                                                         nd_operand(right + at), !fresh || at > 0);
    }
    nd_warpgroup_commit();
}

template <bool GROUPED>
__device__ __forceinline__ void store_parts(const hopper_product &p,
                                            const int32_t (*sums)[tile<GROUPED>::columns / 2],
                                            const float *scaled, int row, int o)
{
    ND_UNROLL
    for (int part = 0; part < tile<GROUPED>::parts; part++) {
        if (!GROUPED && p.y.dtype == ND_BF16)
            store_results<GROUPED, !GROUPED>(p, sums[part], scaled, row + 64 * part, o);
        else
            store_results<GROUPED, false>(p, sums[part], scaled, row + 64 * part, o);
    }
}

template <bool GROUPED>
__device__ __forceinline__ void consume(const hopper_product &p, unsigned char *stages,
                                        uint64_t *full, uint64_t *empty)
{
    const int COUNT = tile<GROUPED>::columns / 2; /* sums per thread */
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32 - ND_WARPGROUP / 32;
    const int PARTS = tile<GROUPED>::parts;
    const int group_row = warp / 4 * 64 * PARTS; /* this warpgroup's rows in the tile */
    int stage = 0;
    uint32_t parity = 0;
    int32_t sums[PARTS][COUNT];
    float scaled[GROUPED ? COUNT : 1];
    ND_UNROLL
    for (int i = 0; i < PARTS * COUNT; i++)
        sums[i / COUNT][i % COUNT] = 0;
    for (int number = (int)blockIdx.x; number < p.tiles; number += (int)gridDim.x) {
        int row, column, held = -1; /* a stage whose products may still run */
        bool fresh = true;          /* start new sums */
        place_tile<GROUPED>(p, number, &row, &column);
        row += group_row + warp % 4 * 16 + lane / 4;
        ND_UNROLL
        for (int i = 0; GROUPED && i < COUNT; i++)
            scaled[i] = 0.0f;
        for (int slice = 0; slice < p.slices; slice++) {
            const unsigned char *left = stages + stage * tile<GROUPED>::stage_bytes;
            const unsigned char *right = left + tile<GROUPED>::left_bytes;
            if (!nd_barrier_wait(&full[stage], parity)) {
                nd_warpgroup_wait<0>();
                return report_stop(p);
            }
            multiply<GROUPED>(sums, left + group_row * SLICE, right, fresh);
            fresh = false;
            const bool group_ends =
                GROUPED && ((slice + 1) % p.group_slices == 0 || slice + 1 == p.slices);
            if (group_ends)
                nd_warpgroup_wait<0>();
            else
                nd_warpgroup_wait<1>();
            if (held >= 0 && lane == 0)
                nd_barrier_arrive(&empty[held]);
            held = stage;
            if (group_ends) {
                if (lane == 0)
                    nd_barrier_arrive(&empty[held]);
                held = -1;
                scale_group(p, scaled, sums[0], COUNT, row, slice / p.group_slices);
                fresh = true;
            }
            if (++stage == tile<GROUPED>::stages)
                stage = 0, parity ^= 1;
        }
        nd_warpgroup_wait<0>();
        if (held >= 0 && lane == 0)
            nd_barrier_arrive(&empty[held]);
        store_parts<GROUPED>(p, sums, scaled, row, column + lane % 4 * 2);
    }
}

#endif

template <bool GROUPED>
__global__ void __launch_bounds__(BLOCK, 1)
    int8_hopper_kernel(const ND_GRID_CONSTANT nd_tensor_map left,
                       const ND_GRID_CONSTANT nd_tensor_map right, hopper_product p)
{
#if ND_HOPPER
    ND_DYNAMIC_SHARED(memory);
    __shared__ __align__(8) uint64_t full[tile<GROUPED>::stages], empty[tile<GROUPED>::stages];
    const uint32_t beyond = nd_shared_address(memory) % ND_SWIZZLE_ATOM;
    unsigned char *stages = memory + (beyond ? ND_SWIZZLE_ATOM - beyond : 0);
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < tile<GROUPED>::stages; stage++) {
            nd_barrier_init(&full[stage], 1);
            nd_barrier_init(&empty[stage], CONSUMER_WARPS);
        }
        nd_barrier_publish();
    }
    __syncthreads();
    if (threadIdx.x < ND_WARPGROUP) {
        nd_registers_give<PRODUCER_REGISTERS>();
        if (threadIdx.x == 0)
            produce<GROUPED>(p, &left, &right, stages, full, empty);
    } else {
        nd_registers_take<CONSUMER_REGISTERS>();
        consume<GROUPED>(p, stages, full, empty);
    }
#else
    (void)left, (void)right, (void)p;
#endif
}

template <bool GROUPED> static nd_status launch(nd_cuda *cuda, const nd_int8_product *p)
{
    const int64_t rows = tile<GROUPED>::rows, columns = tile<GROUPED>::columns;
    const int64_t tiles = nd_ceil(p->y.rows, rows) * nd_ceil(p->y.cols, columns);
    nd_tensor_map left, right;
    ND_TRY(nd_cuda_tensor_map(cuda, &left, p->left, p->y.rows, p->k, (int)rows));
    ND_TRY(nd_cuda_tensor_map(cuda, &right, p->right, p->y.cols, p->k, (int)columns));
    hopper_product all;
    memset(&all, 0, sizeof all);
    all.y = nd_floats_of(p->y);
    all.a = p->a;
    all.s = p->s;
    all.tokens = (int)p->y.rows;
    all.outputs = (int)p->y.cols;
    all.slices = (int)nd_ceil(p->k, SLICE);
    all.group_slices = GROUPED ? (int)(p->row_width / SLICE) : all.slices;
    all.tiles = (int)tiles;
    all.add = p->add;
    all.fault = cuda->fault;
    ND_CUDA_TRY(cudaFuncSetAttribute(int8_hopper_kernel<GROUPED>,
                                     cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     (int)tile<GROUPED>::shared));
    return ND_CUDA(ND_LAUNCH(int8_hopper_kernel<GROUPED>,
                             dim3((unsigned)nd_min(tiles, cuda->multiprocessors)), dim3(BLOCK),
                             (size_t)tile<GROUPED>::shared, cuda->stream, left, right, all));
}

bool nd_cuda_int8_hopper_takes(const nd_int8_product *p)
{
    const int64_t most = INT32_MAX / 2;
    const uintptr_t addresses = (uintptr_t)p->left | (uintptr_t)p->right | (uintptr_t)p->y.data;
    return p->groups == 0 && p->row_width % SLICE == 0 && nd_all_wide(p->y.dtype) &&
           (p->row_width == 0 || p->y.dtype == ND_F32) && p->k % 16 == 0 && addresses % 16 == 0 &&
           p->y.cols % 8 == 0 && p->y.rows < most && p->y.cols < most && p->k < most &&
           nd_ceil(p->y.rows, 128) * nd_ceil(p->y.cols, 128) < most;
}

nd_status nd_cuda_int8_hopper(nd_cuda *cuda, const nd_int8_product *p)
{
    ND_REQUIRE(nd_cuda_int8_hopper_takes(p));
    return p->row_width > 0 ? launch<true>(cuda, p) : launch<false>(cuda, p);
}
