/* Rotary positions. Cosines and sines are computed once, in double, as positions are needed. */
#include "floats.cuh"

__global__ void rope_table_kernel(float *cosines, float *sines, int64_t positions, int64_t half,
                                  double base)
{
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= positions * half)
        return;
    const double exponent = -(double)(i % half) / (double)half;
    const double angle = (double)(i / half) * pow(base, exponent);
    cosines[i] = (float)cos(angle);
    sines[i] = (float)sin(angle);
}

__global__ void rope_kernel(nd_floats x, const float *cosines, const float *sines,
                            const int32_t *rows, int64_t tokens, int64_t heads, int64_t half,
                            int64_t seq_len, int64_t start, bool halves, bool inverse)
{
    const int64_t pairs = heads * half;
    ND_GRID_LOOP(at, tokens * pairs) {
        const int64_t t = at / pairs, head = at % pairs / half, i = at % half;
        const int64_t token = rows ? rows[t] : t;
        if (token < 0)
            continue;
        const int64_t entry = (start + token % seq_len) * half + i;
        const float c = cosines[entry], s = inverse ? -sines[entry] : sines[entry];
        const int64_t first = (t * heads + head) * 2 * half + (halves ? i : 2 * i);
        const int64_t second = first + (halves ? half : 1);
        const float u = nd_load_one(x, first), v = nd_load_one(x, second);
        nd_store_one(x, first, u * c - v * s);
        nd_store_one(x, second, u * s + v * c);
    }
}

/* Elements from `first` on as eight pairs (u, v): two halves of a head, or neighbors. */
__device__ __forceinline__ void load_pairs(nd_floats x, int64_t first, int half, bool halves,
                                           float u[ND_WIDE], float v[ND_WIDE])
{
    float low[ND_WIDE], high[ND_WIDE];
    nd_load_wide(x, first, ND_WIDE, true, low);
    nd_load_wide(x, first + (halves ? half : ND_WIDE), ND_WIDE, true, high);
    ND_UNROLL
    for (int j = 0; j < ND_WIDE; j++) {
        u[j] = halves ? low[j] : j < 4 ? low[2 * j % 8] : high[2 * j % 8];
        v[j] = halves ? high[j] : j < 4 ? low[2 * j % 8 + 1] : high[2 * j % 8 + 1];
    }
}

__device__ __forceinline__ void store_pairs(nd_floats x, int64_t first, int half, bool halves,
                                            const float u[ND_WIDE], const float v[ND_WIDE])
{
    float low[ND_WIDE], high[ND_WIDE];
    ND_UNROLL
    for (int j = 0; j < ND_WIDE; j++) {
        low[j] = halves ? u[j] : j % 2 ? v[j / 2] : u[j / 2];
        high[j] = halves ? v[j] : j % 2 ? v[4 + j / 2] : u[4 + j / 2];
    }
    nd_store_wide(x, first, ND_WIDE, true, low);
    nd_store_wide(x, first + (halves ? half : ND_WIDE), ND_WIDE, true, high);
}

/* One block per token; a thread has eight pairs of a head, whose number is a multiple of eight:
 * 16-byte accesses, and one 64-bit division per token. */
__global__ void rope_wide_kernel(nd_floats x, const float *cosines, const float *sines,
                                 const int32_t *rows, int64_t tokens, int heads, int half,
                                 int64_t seq_len, int64_t start, bool halves, bool inverse)
{
    const nd_floats tables[2] = {{const_cast<float *>(cosines), ND_F32},
                                 {const_cast<float *>(sines), ND_F32}};
    const int pieces = half / ND_WIDE;
    for (int64_t t = blockIdx.x; t < tokens; t += gridDim.x) {
        const int64_t token = rows ? rows[t] : t;
        if (token < 0)
            continue;
        const int64_t entry = (start + token % seq_len) * half;
        for (int at = (int)threadIdx.x; at < heads * pieces; at += (int)blockDim.x) {
            const int head = at / pieces, i = at % pieces * ND_WIDE;
            const int64_t first = (t * heads + head) * 2 * half + (halves ? i : 2 * i);
            float u[ND_WIDE], v[ND_WIDE], c[ND_WIDE], s[ND_WIDE];
            load_pairs(x, first, half, halves, u, v);
            nd_load_wide(tables[0], entry + i, ND_WIDE, true, c);
            nd_load_wide(tables[1], entry + i, ND_WIDE, true, s);
            ND_UNROLL
            for (int j = 0; j < ND_WIDE; j++) {
                const float sine = inverse ? -s[j] : s[j], before = u[j];
                u[j] = before * c[j] - v[j] * sine;
                v[j] = before * sine + v[j] * c[j];
            }
            store_pairs(x, first, half, halves, u, v);
        }
    }
}

/* Extends the table to at least `positions`. */
static nd_status grow_table(nd_cuda *cuda, int64_t positions, int64_t head_dim, double base)
{
    const int64_t half = head_dim / 2;
    if (cuda->rope && cuda->rope_base == base && cuda->rope_head_dim == head_dim &&
        cuda->rope_positions >= positions)
        return ND_OK;
    ND_TRY(nd_cuda_free(cuda, cuda->rope));
    cuda->rope = NULL;
    cuda->epoch++;
    const int64_t rounded = nd_ceil(positions, 256) * 256, count = rounded * half;
    ND_CUDA_TRY(
        cudaMalloc(reinterpret_cast<void **>(&cuda->rope), 2 * (size_t)count * sizeof(float)));
    cuda->rope_positions = rounded;
    cuda->rope_head_dim = head_dim;
    cuda->rope_base = base;
    return ND_CUDA(ND_LAUNCH(rope_table_kernel, dim3((unsigned)nd_ceil(count, 128)), dim3(128), 0,
                             cuda->stream, cuda->rope, cuda->rope + count, rounded, half, base));
}

static nd_status rope_cuda(nd_backend *b, nd_view x, const nd_rope_params *p)
{
    nd_cuda *cuda = nd_cuda_of(b);
    ND_REQUIRE(nd_all_wide(x.dtype) && p->head_dim > 0 && p->head_dim % 2 == 0);
    ND_REQUIRE(x.cols % p->head_dim == 0 && p->seq_len > 0);
    ND_REQUIRE(!p->rows.data || p->rows.cols == x.rows);
    if (x.rows * x.cols == 0)
        return ND_OK;
    ND_TRY(grow_table(cuda, p->start + p->seq_len, p->head_dim, p->base));
    const int64_t half = p->head_dim / 2, heads = x.cols / p->head_dim;
    const float *sines = cuda->rope + cuda->rope_positions * half;
    if (half % ND_WIDE == 0 && nd_aligned(x.cols, x.data) && x.cols < INT32_MAX) {
        const int64_t threads = nd_min(nd_ceil(heads * half / ND_WIDE, 32) * 32, 256);
        return ND_CUDA(ND_LAUNCH(rope_wide_kernel, dim3((unsigned)nd_min(x.rows, 1 << 16)),
                                 dim3((unsigned)threads), 0, cuda->stream, nd_floats_of(x),
                                 cuda->rope, sines, static_cast<const int32_t *>(p->rows.data),
                                 x.rows, (int)heads, (int)half, p->seq_len, p->start,
                                 p->style == ND_ROPE_HALVES, p->inverse));
    }
    return ND_LAUNCH_EACH(rope_kernel, cuda, x.rows * heads * half, nd_floats_of(x), cuda->rope,
                          sines, static_cast<const int32_t *>(p->rows.data), x.rows, heads, half,
                          p->seq_len, p->start, p->style == ND_ROPE_HALVES, p->inverse);
}

void nd_cuda_fill_rope(nd_backend_ops *ops)
{
    ops->rope = rope_cuda;
}
