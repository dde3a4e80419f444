/* Ternary codes, their packing, and the quantization of activations. */
#include "floats.cuh"

enum { MEAN_BLOCKS = 1024, MEAN_THREADS = 256 };

/* IEEE binary16's nearest value, ties to even; x >= 1e-5, so above the subnormals' smallest, or
 * NaN, which becomes infinite. */
__device__ __forceinline__ float round_to_f16(float x)
{
    const uint32_t bits = nd_bits_of(x);
    if (bits >= 0x477ff000u)
        return nd_float_of(0x7f800000u);
    if (bits < 0x38800000u) /* subnormal: adding 0.5 rounds at 2^-24 */
        return (x + 0.5f) - 0.5f;
    return nd_float_of((bits + 0xfffu + ((bits >> 13) & 1u)) & ~0x1fffu);
}

__device__ __forceinline__ float scale_of_mean(double mean)
{
    return round_to_f16((float)(mean < 1e-5 ? 1e-5 : mean));
}

/* clip(rint(w / s), -1, 1): |w| / s <= 1/2 rounds to 0, ties to even included. */
__device__ __forceinline__ int code_of(float w, float half_scale)
{
    return w > half_scale ? 1 : w < -half_scale ? -1 : 0;
}

__global__ void absolute_sum_kernel(double *partial, nd_floats w, int64_t count, bool wide)
{
    __shared__ double shared[32];
    double sum = 0.0;
    ND_GRID_LOOP_WIDE(i, count) {
        float x[ND_WIDE];
        nd_load_wide(w, i, count - i, wide, x);
        for (int j = 0; j < ND_WIDE; j++)
            sum += (double)fabsf(x[j]);
    }
    sum = nd_block_sum(sum, shared);
    if (threadIdx.x == 0)
        partial[blockIdx.x] = sum;
}

__global__ void scale_kernel(float *s, const double *partial, int parts, int64_t count)
{
    __shared__ double shared[32];
    double sum = 0.0;
    for (int i = (int)threadIdx.x; i < parts; i += (int)blockDim.x)
        sum += partial[i];
    sum = nd_block_sum(sum, shared);
    if (threadIdx.x == 0)
        *s = scale_of_mean(sum / (double)count);
}

__global__ void code_kernel(int8_t *c, const float *s, nd_floats w, int64_t count, bool wide)
{
    const float half_scale = 0.5f * *s;
    ND_GRID_LOOP_WIDE(i, count) {
        float x[ND_WIDE];
        int code[ND_WIDE];
        nd_load_wide(w, i, count - i, wide, x);
        for (int j = 0; j < ND_WIDE; j++)
            code[j] = code_of(x[j], half_scale);
        nd_store_codes(c + i, count - i, wide, code);
    }
}

/* One warp per group of `width` consecutive weights. */
__global__ void group_code_kernel(int8_t *c, float *s, nd_floats w, int64_t groups, int64_t width)
{
    const int64_t group = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    const int lane = (int)threadIdx.x % 32;
    if (group >= groups)
        return;
    double sum = 0.0;
    for (int64_t i = lane; i < width; i += 32)
        sum += (double)fabsf(nd_load_one(w, group * width + i));
    sum = nd_warp_sum(sum);
    const float scale = scale_of_mean(sum / (double)width);
    if (lane == 0)
        s[group] = scale;
    for (int64_t i = lane; i < width; i += 32)
        c[group * width + i] = (int8_t)code_of(nd_load_one(w, group * width + i), 0.5f * scale);
}

/* Sixteen codes per thread. */
__global__ void pack_kernel(uint8_t *packed, const int8_t *c, int64_t count, bool wide)
{
    const int64_t first = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * 16;
    if (first >= count)
        return;
    if (wide) {
        const uint4 all = *reinterpret_cast<const uint4 *>(c + first);
        const uint32_t words[4] = {all.x, all.y, all.z, all.w};
        uint32_t out = 0;
        ND_UNROLL
        for (int word = 0; word < 4; word++)
            ND_UNROLL
        for (int j = 0; j < 4; j++)
            out |= (((words[word] >> (8 * j)) + 1u) & 3u) << (8 * word + 2 * j);
        *reinterpret_cast<uint32_t *>(packed + first / 4) = out;
        return;
    }
    for (int64_t byte = first / 4; byte < first / 4 + 4 && byte * 4 < count; byte++) {
        unsigned bits = 0;
        for (int64_t j = 0; j < 4 && byte * 4 + j < count; j++)
            bits |= (unsigned)(c[byte * 4 + j] + 1) << (2 * j);
        packed[byte] = (uint8_t)bits;
    }
}

__global__ void unpack_kernel(int8_t *c, const uint8_t *packed, int64_t count, bool wide)
{
    const int64_t first = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * 16;
    if (first >= count)
        return;
    if (wide) {
        const uint32_t in = *reinterpret_cast<const uint32_t *>(packed + first / 4);
        uint32_t words[4] = {0, 0, 0, 0};
        ND_UNROLL
        for (int word = 0; word < 4; word++)
            ND_UNROLL
        for (int j = 0; j < 4; j++)
            words[word] |= (((in >> (8 * word + 2 * j) & 3u) - 1u) & 0xffu) << (8 * j);
        *reinterpret_cast<uint4 *>(c + first) = make_uint4(words[0], words[1], words[2], words[3]);
        return;
    }
    for (int64_t i = first; i < first + 16 && i < count; i++)
        c[i] = (int8_t)((int)(packed[i / 4] >> (2 * (i % 4)) & 3) - 1);
}

/* One byte per thread; its codes are `bytes` apart, so that loads are coalesced. */
__global__ void pack_trits_kernel(uint8_t *packed, const int8_t *c, int64_t count, int64_t bytes)
{
    const int64_t j = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= bytes)
        return;
    int value = 0, power = 1;
    for (int64_t i = j; i < count; i += bytes, power *= 3)
        value += power * (c[i] + 1);
    packed[j] = (uint8_t)value;
}

__global__ void unpack_trits_kernel(int8_t *c, const uint8_t *packed, int64_t count, int64_t bytes)
{
    const int64_t j = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= bytes)
        return;
    int value = packed[j];
    for (int64_t i = j; i < count; i += bytes, value /= 3)
        c[i] = (int8_t)(value % 3 - 1);
}

/* width: inputs per scale. */
__global__ void dequantize_kernel(nd_floats w, const int8_t *c, const float *s, int64_t count,
                                  int64_t width, bool wide)
{
    ND_GRID_LOOP_WIDE(i, count) {
        int code[ND_WIDE];
        float x[ND_WIDE];
        nd_load_codes(c + i, count - i, wide, code);
        for (int j = 0; j < ND_WIDE; j++)
            x[j] = i + j < count ? s[(i + j) / width] * (float)code[j] : 0.0f;
        nd_store_wide(w, i, count - i, wide, x);
    }
}

__global__ void quantize_rows_kernel(int8_t *q, float *maxima, nd_floats x, int64_t n, bool wide)
{
    __shared__ float shared[32];
    const int64_t t = blockIdx.x, row = t * n;
    nd_quantize_row(q + row, maxima + t, n, wide, shared,
                    [=](int64_t i, float *a) { nd_load_wide(x, row + i, n - i, wide, a); });
}

static bool is_single(nd_cview c, nd_cview s)
{
    return s.rows == 1 && s.cols == 1 && c.rows * c.cols > 0;
}

static bool scales_fit(nd_cview c, nd_cview s)
{
    return s.dtype == ND_F32 &&
           (is_single(c, s) || (s.rows == c.rows && s.cols > 0 && c.cols % s.cols == 0));
}

static nd_status ternarize_cuda(nd_backend *b, nd_view c, nd_view s, nd_cview w)
{
    nd_cuda *cuda = nd_cuda_of(b);
    const int64_t count = nd_view_count(w);
    ND_REQUIRE(c.dtype == ND_I8 && nd_all_wide(w.dtype) && nd_same_shape(nd_as_const(c), w));
    ND_REQUIRE(count == 0 || scales_fit(nd_as_const(c), nd_as_const(s)));
    if (count == 0)
        return ND_OK;
    int8_t *codes = static_cast<int8_t *>(c.data);
    float *scales = static_cast<float *>(s.data);
    if (!is_single(nd_as_const(c), nd_as_const(s))) {
        const int64_t groups = s.rows * s.cols;
        return ND_CUDA(ND_LAUNCH(group_code_kernel, dim3((unsigned)nd_ceil(groups, 8)), dim3(256),
                                 0, cuda->stream, codes, scales, nd_floats_of(w), groups,
                                 count / groups));
    }
    void *scratch;
    const bool wide = nd_aligned(count, c.data, w.data);
    const unsigned blocks = nd_blocks_for(nd_ceil(count, ND_WIDE), MEAN_THREADS, MEAN_BLOCKS);
    ND_TRY(nd_cuda_scratch(cuda, MEAN_BLOCKS * sizeof(double), &scratch));
    double *partial = static_cast<double *>(scratch);
    ND_CUDA_TRY(ND_LAUNCH(absolute_sum_kernel, dim3(blocks), dim3(MEAN_THREADS), 0, cuda->stream,
                          partial, nd_floats_of(w), count, wide));
    ND_CUDA_TRY(ND_LAUNCH(scale_kernel, dim3(1), dim3(MEAN_THREADS), 0, cuda->stream, scales,
                          partial, (int)blocks, count));
    return ND_LAUNCH_WIDE(code_kernel, cuda, count, codes, scales, nd_floats_of(w), count, wide);
}

/* `per_byte` codes to a byte. */
static nd_status check_packed(nd_cview packed, nd_cview c, int64_t per_byte)
{
    ND_REQUIRE(packed.dtype == ND_U8 && c.dtype == ND_I8);
    ND_REQUIRE(nd_view_count(packed) == nd_ceil(nd_view_count(c), per_byte));
    return ND_OK;
}

/* Whether the kernels of packed codes can access sixteen of them at once. */
static bool packs_wide(nd_cview packed, nd_cview c)
{
    return nd_view_count(c) % 16 == 0 && (uintptr_t)c.data % 16 == 0 &&
           (uintptr_t)packed.data % 4 == 0;
}

/* Runs a kernel of packing or unpacking; `last` is its last argument. */
template <typename To, typename From, typename Last>
static nd_status repack(nd_backend *b, void (*kernel)(To *, const From *, int64_t, Last),
                        nd_view to, nd_cview from, int64_t count, int64_t threads, Last last)
{
    if (count == 0)
        return ND_OK;
    return ND_CUDA(ND_LAUNCH(kernel, dim3((unsigned)nd_ceil(threads, 256)), dim3(256), 0,
                             nd_cuda_of(b)->stream, static_cast<To *>(to.data),
                             static_cast<const From *>(from.data), count, last));
}

static nd_status pack_codes_cuda(nd_backend *b, nd_view packed, nd_cview c)
{
    const int64_t count = nd_view_count(c);
    ND_TRY(check_packed(nd_as_const(packed), c, 4));
    return repack(b, pack_kernel, packed, c, count, nd_ceil(count, 16),
                  packs_wide(nd_as_const(packed), c));
}

static nd_status unpack_codes_cuda(nd_backend *b, nd_view c, nd_cview packed)
{
    const int64_t count = nd_view_count(nd_as_const(c));
    ND_TRY(check_packed(packed, nd_as_const(c), 4));
    return repack(b, unpack_kernel, c, packed, count, nd_ceil(count, 16),
                  packs_wide(packed, nd_as_const(c)));
}

static nd_status pack_trits_cuda(nd_backend *b, nd_view packed, nd_cview c)
{
    const int64_t count = nd_view_count(c), bytes = nd_ceil(count, 5);
    ND_TRY(check_packed(nd_as_const(packed), c, 5));
    return repack(b, pack_trits_kernel, packed, c, count, bytes, bytes);
}

static nd_status unpack_trits_cuda(nd_backend *b, nd_view c, nd_cview packed)
{
    const int64_t count = nd_view_count(nd_as_const(c)), bytes = nd_ceil(count, 5);
    ND_TRY(check_packed(packed, nd_as_const(c), 5));
    return repack(b, unpack_trits_kernel, c, packed, count, bytes, bytes);
}

static nd_status dequantize_codes_cuda(nd_backend *b, nd_view w, nd_cview c, nd_cview s)
{
    nd_cuda *cuda = nd_cuda_of(b);
    const int64_t count = nd_view_count(c);
    ND_REQUIRE(nd_all_wide(w.dtype) && c.dtype == ND_I8 && nd_same_shape(nd_as_const(w), c));
    ND_REQUIRE(count == 0 || scales_fit(c, s));
    if (count == 0)
        return ND_OK;
    const int64_t width = count / nd_view_count(s);
    return ND_LAUNCH_WIDE(dequantize_kernel, cuda, count, nd_floats_of(w),
                          static_cast<const int8_t *>(c.data), static_cast<const float *>(s.data),
                          count, width, nd_aligned(count, w.data, c.data));
}

static nd_status quantize_rows_cuda(nd_backend *b, nd_view q, nd_view a, nd_cview x)
{
    nd_cuda *cuda = nd_cuda_of(b);
    ND_REQUIRE(q.dtype == ND_I8 && a.dtype == ND_F32 && nd_all_wide(x.dtype));
    ND_REQUIRE(nd_same_shape(nd_as_const(q), x) && a.rows == x.rows && a.cols == 1);
    if (nd_view_count(x) == 0)
        return ND_OK;
    return ND_CUDA(ND_LAUNCH(quantize_rows_kernel, dim3((unsigned)x.rows),
                             dim3(nd_row_threads(x.cols)), 0, cuda->stream,
                             static_cast<int8_t *>(q.data), static_cast<float *>(a.data),
                             nd_floats_of(x), x.cols, nd_aligned(x.cols, q.data, x.data)));
}

void nd_cuda_fill_codes(nd_backend_ops *ops)
{
    ops->ternarize = ternarize_cuda;
    ops->pack_codes = pack_codes_cuda;
    ops->unpack_codes = unpack_codes_cuda;
    ops->pack_trits = pack_trits_cuda;
    ops->unpack_trits = unpack_trits_cuda;
    ops->dequantize_codes = dequantize_codes_cuda;
    ops->quantize_rows = quantize_rows_cuda;
}
