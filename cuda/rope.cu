/* Rotary positions. Cosines and sines are computed in double once and kept, as far as positions have
 * been asked for. */
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

/* The table holds at least `positions`. */
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
    ND_CUDA_TRY(ND_LAUNCH(rope_table_kernel, dim3((unsigned)nd_ceil(count, 128)), dim3(128), 0,
                          cuda->stream, cuda->rope, cuda->rope + count, rounded, half, base));
    return ND_OK;
}

static nd_status rope_cuda(nd_backend *b, nd_view x, const nd_rope_params *p)
{
    nd_cuda *cuda = nd_cuda_of(b);
    ND_REQUIRE(nd_is_wide_type(x.dtype) && p->head_dim > 0 && p->head_dim % 2 == 0);
    ND_REQUIRE(x.cols % p->head_dim == 0 && p->seq_len > 0);
    ND_REQUIRE(!p->rows.data || p->rows.cols == x.rows);
    if (x.rows * x.cols == 0)
        return ND_OK;
    ND_TRY(grow_table(cuda, p->start + p->seq_len, p->head_dim, p->base));
    const int64_t half = p->head_dim / 2, heads = x.cols / p->head_dim;
    const float *sines = cuda->rope + cuda->rope_positions * half;
    ND_CUDA_TRY(ND_LAUNCH(rope_kernel, dim3(nd_blocks_for(x.rows * heads * half, 256, 1 << 16)),
                          dim3(256), 0, cuda->stream, nd_floats_of(x), cuda->rope, sines,
                          static_cast<const int32_t *>(p->rows.data), x.rows, heads, half,
                          p->seq_len, p->start, p->style == ND_ROPE_HALVES, p->inverse));
    return ND_OK;
}

void nd_cuda_fill_rope(nd_backend_ops *ops)
{
    ops->rope = rope_cuda;
}
