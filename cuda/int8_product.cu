/* int8 x int8 -> int32 on tensor cores by tiles, scaled while it is stored. */
#include "floats.cuh"

#include "int8_product.cuh"
#include "tensor_tiles.cuh"

/* Groups of inputs that are scaled separately: by scales of outputs, or of rows. */
enum { NO_GROUPS, OUTPUT_GROUPS, ROW_GROUPS };

/* Stores a thread's results from `token0` and `output0` on. */
template <int GROUPS>
__device__ __forceinline__ void store_tile(nd_floats y, const float *a, float one,
                                           const int32_t sums[4][4][4], const float scaled[4][4][4],
                                           int64_t token0, int64_t output0, int64_t tokens,
                                           int64_t outputs, bool add)
{
    ND_UNROLL
    for (int i = 0; i < 4; i++)
        ND_UNROLL
    for (int half = 0; half < 2; half++) {
        const int64_t t = token0 + 16 * i + 8 * half;
        if (t >= tokens)
            continue;
        const float factor = GROUPS == ROW_GROUPS ? 1.0f / 127.0f : one * (a[t] / 127.0f);
        ND_UNROLL
        for (int j = 0; j < 4; j++) {
            const int64_t o = output0 + 8 * j;
            const int64_t at = t * outputs + o;
            float value[2];
            ND_UNROLL
            for (int e = 0; e < 2; e++) {
                const int from = 2 * half + e;
                value[e] = nd_product(
                    GROUPS == NO_GROUPS ? (float)sums[i][j][from] : scaled[i][j][from], factor);
                if (add && o + e < outputs)
                    value[e] += nd_load_one(y, at + e);
            }
            uint16_t *pair = static_cast<uint16_t *>(y.data) + at;
            if (o + 1 < outputs && y.dtype == ND_BF16 && (uintptr_t)pair % 4 == 0) {
                *reinterpret_cast<uint32_t *>(pair) = nd_pack_bf16(value[0], value[1]);
                continue;
            }
            if (o < outputs)
                nd_store_one(y, at, value[0]);
            if (o + 1 < outputs)
                nd_store_one(y, at + 1, value[1]);
        }
    }
}

template <int GROUPS>
__global__ void __launch_bounds__(ND_TILE_THREADS)
    int8_product_kernel(nd_floats y, const int8_t *q, const float *a, const int8_t *c,
                        const float *s, int64_t tokens, int64_t outputs, int64_t k, int64_t width,
                        bool add, bool aligned)
{
    ND_DYNAMIC_SHARED(memory);
    int8_t *stages = reinterpret_cast<int8_t *>(memory);
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    const int warp_row = warp / 4 * ND_WARP_ROWS, warp_column = warp % 4 * ND_WARP_COLUMNS;
    const int64_t token0 = (int64_t)blockIdx.y * ND_TILE_ROWS;
    const int64_t output0 = (int64_t)blockIdx.x * ND_TILE_ROWS, groups = (k + width - 1) / width;
    const int slices = (int)((k + ND_TILE_SLICE - 1) / ND_TILE_SLICE);
    int32_t sums[4][4][4];
    float scaled[4][4][4];
    ND_UNROLL
    for (int i = 0; i < 64; i++) {
        sums[i / 16][i / 4 % 4][i % 4] = 0;
        scaled[i / 16][i / 4 % 4][i % 4] = 0.0f;
    }
    const auto fetch = [&](int8_t *stage, int slice) {
        const int at = slice * ND_TILE_SLICE;
        nd_tile_fetch(stage, q, (int)token0, (int)tokens, at, (int)k, aligned);
        nd_tile_fetch(stage + ND_TILE_BYTES, c, (int)output0, (int)outputs, at, (int)k, aligned);
    };
    const auto multiply = [&](int8_t *stage, int slice) {
        ND_UNROLL
        for (int part = 0; part < ND_TILE_SLICE / 32; part++) {
            uint32_t x[4][4], w[4][2];
            nd_tile_fragments(x, w, stage, stage + ND_TILE_BYTES, warp_row, warp_column, part);
            ND_UNROLL
            for (int i = 0; i < 4; i++)
                ND_UNROLL
            for (int j = 0; j < 4; j++)
                nd_mma_int8(sums[i][j], x[i], w[j][0], w[j][1]);
            const int64_t from = (int64_t)slice * ND_TILE_SLICE + part * 32, done = from + 32;
            if (GROUPS == NO_GROUPS || from >= k || (done % width != 0 && done < k))
                continue;
            const int64_t group = from / width; /* ends here */
            ND_UNROLL
            for (int major = 0; major < 4; major++)
                ND_UNROLL
            for (int e = 0; e < 4; e++) {
                const int64_t o = output0 + warp_column + 8 * major + lane % 4 * 2 + e % 2;
                const int64_t t = token0 + warp_row + 16 * major + lane / 4 + 8 * (e / 2);
                float scale = 0.0f;
                if (GROUPS == OUTPUT_GROUPS && o < outputs)
                    scale = s[o * groups + group];
                if (GROUPS == ROW_GROUPS && t < tokens)
                    scale = s[group * tokens + t];
                ND_UNROLL
                for (int minor = 0; minor < 4; minor++) {
                    const int i = GROUPS == ROW_GROUPS ? major : minor;
                    const int j = GROUPS == ROW_GROUPS ? minor : major;
                    scaled[i][j][e] += scale * (float)sums[i][j][e];
                    sums[i][j][e] = 0;
                }
            }
        }
    };
    nd_tile_pipeline(stages, slices, fetch, multiply);
    const float one = GROUPS == NO_GROUPS ? *s : 1.0f;
    store_tile<GROUPS>(y, a, one, sums, scaled, token0 + warp_row + lane / 4,
                       output0 + warp_column + lane % 4 * 2, tokens, outputs, add);
}

/* One thread per result: for groups not aligned to slices. */
__global__ void int8_product_plain_kernel(nd_floats y, const int8_t *q, const float *a,
                                          const int8_t *c, const float *s, int64_t tokens,
                                          int64_t outputs, int64_t k, int64_t groups)
{
    const int64_t width = k / groups;
    ND_GRID_LOOP(at, tokens * outputs) {
        const int64_t t = at / outputs, o = at % outputs;
        float total = 0.0f;
        for (int64_t g = 0; g < groups; g++) {
            int32_t sum = 0;
            for (int64_t i = g * width; i < (g + 1) * width; i++)
                sum += (int32_t)q[t * k + i] * (int32_t)c[o * k + i];
            total += s[o * groups + g] * (float)sum;
        }
        nd_store_one(y, at, total * (a[t] / 127.0f));
    }
}

template <int GROUPS>
static nd_status launch(nd_cuda *cuda, const nd_int8_product *p, int64_t width)
{
    const bool aligned = p->k % 16 == 0 && ((uintptr_t)p->left | (uintptr_t)p->right) % 16 == 0;
    const int64_t rows = nd_ceil(p->y.rows, ND_TILE_ROWS);
    ND_REQUIRE(rows <= 65535 && p->y.cols < INT32_MAX / 2 && p->k < INT32_MAX / 2);
    ND_CUDA_TRY(cudaFuncSetAttribute(int8_product_kernel<GROUPS>,
                                     cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     (int)nd_tile_shared));
    return ND_CUDA(ND_LAUNCH(int8_product_kernel<GROUPS>,
                             dim3((unsigned)nd_ceil(p->y.cols, ND_TILE_ROWS), (unsigned)rows),
                             dim3(ND_TILE_THREADS), nd_tile_shared, cuda->stream,
                             nd_floats_of(p->y), p->left, p->a, p->right, p->s, p->y.rows,
                             p->y.cols, p->k, width, p->add, aligned));
}

nd_status nd_cuda_int8_mma(nd_cuda *cuda, const nd_int8_product *p)
{
    if (p->row_width > 0) {
        ND_REQUIRE(p->row_width % 32 == 0);
        return launch<ROW_GROUPS>(cuda, p, p->row_width);
    }
    if (p->groups == 0)
        return launch<NO_GROUPS>(cuda, p, p->k);
    if (p->k / p->groups % 32 == 0)
        return launch<OUTPUT_GROUPS>(cuda, p, p->k / p->groups);
    ND_REQUIRE(!p->add);
    return ND_CUDA(ND_LAUNCH(int8_product_plain_kernel,
                             dim3(nd_blocks_for(p->y.rows * p->y.cols, 128, 1 << 16)), dim3(128), 0,
                             cuda->stream, nd_floats_of(p->y), p->left, p->a, p->right, p->s,
                             p->y.rows, p->y.cols, p->k, p->groups));
}
