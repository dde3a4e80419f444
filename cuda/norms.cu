/* RMSNorm, alone and with the following quantization, and its gradient: one block per row, which is
 * read again from cache if needed twice. */
#include "columns.cuh"

__device__ __forceinline__ float norm_scale(nd_floats x, int64_t row, int64_t n, bool wide,
                                            float *shared)
{
    float sum = 0.0f, a[ND_WIDE];
    for (int64_t i = (int64_t)threadIdx.x * ND_WIDE; i < n; i += (int64_t)blockDim.x * ND_WIDE) {
        nd_load_wide(x, row + i, n - i, wide, a);
        for (int j = 0; j < ND_WIDE; j++)
            sum += a[j] * a[j];
    }
    return nd_norm_scale(sum, n, shared);
}

/* y = scale x w of elements [i, i + ND_WIDE) of a row. */
__device__ __forceinline__ void normalized(float y[ND_WIDE], nd_floats x, nd_floats w, float scale,
                                           int64_t row, int64_t i, int64_t n, bool wide)
{
    float b[ND_WIDE];
    nd_load_wide(x, row + i, n - i, wide, y);
    nd_load_wide(w, i, n - i, wide, b);
    for (int j = 0; j < ND_WIDE; j++)
        y[j] = y[j] * scale * b[j];
}

__global__ void rmsnorm_kernel(nd_floats y, nd_floats r, nd_floats x, nd_floats w, int64_t n,
                               bool wide)
{
    __shared__ float shared[32];
    const int64_t t = blockIdx.x, row = t * n;
    const float scale = norm_scale(x, row, n, wide, shared);
    if (threadIdx.x == 0)
        nd_store_one(r, t, scale);
    for (int64_t i = (int64_t)threadIdx.x * ND_WIDE; i < n; i += (int64_t)blockDim.x * ND_WIDE) {
        float a[ND_WIDE];
        normalized(a, x, w, scale, row, i, n, wide);
        nd_store_wide(y, row + i, n - i, wide, a);
    }
}

__global__ void rmsnorm_quantize_kernel(int8_t *q, float *maxima, nd_floats r, nd_floats x,
                                        nd_floats w, int64_t n, bool wide)
{
    __shared__ float shared[32];
    const int64_t t = blockIdx.x, row = t * n;
    const float scale = norm_scale(x, row, n, wide, shared);
    if (threadIdx.x == 0)
        nd_store_one(r, t, scale);
    nd_quantize_row(q + row, maxima + t, n, wide, shared,
                    [=](int64_t i, float *a) { normalized(a, x, w, scale, row, i, n, wide); });
}

/* A block processes rows t, t + blocks, ... and keeps its part of dw in shared memory. */
__global__ void __launch_bounds__(512, 2)
    rmsnorm_backward_kernel(nd_floats dx, float *partial, nd_floats dy, nd_floats x, nd_floats w,
                            nd_floats r, float beta, int64_t rows, int64_t n, bool wide)
{
    ND_DYNAMIC_SHARED(memory);
    __shared__ float shared[32];
    float *dw = reinterpret_cast<float *>(memory);
    const int64_t step = (int64_t)blockDim.x * ND_WIDE, first = (int64_t)threadIdx.x * ND_WIDE;
    nd_clear_columns(dw, n);
    for (int64_t t = blockIdx.x; t < rows; t += gridDim.x) {
        const int64_t row = t * n;
        const float scale = nd_load_one(r, t);
        float dot = 0.0f, a[ND_WIDE], b[ND_WIDE], g[ND_WIDE];
        for (int64_t i = first; i < n; i += step) {
            nd_load_wide(x, row + i, n - i, wide, a);
            nd_load_wide(w, i, n - i, wide, b);
            nd_load_wide(dy, row + i, n - i, wide, g);
            for (int j = 0; j < ND_WIDE; j++)
                dot += g[j] * b[j] * a[j];
        }
        const float mean = nd_block_sum(dot, shared) / (float)n;
        const float pull = scale * scale * mean;
        for (int64_t i = first; i < n; i += step) {
            float d[ND_WIDE];
            nd_load_wide(x, row + i, n - i, wide, a);
            nd_load_wide(w, i, n - i, wide, b);
            nd_load_wide(dy, row + i, n - i, wide, g);
            if (beta != 0.0f)
                nd_load_wide(dx, row + i, n - i, wide, d);
            for (int j = 0; j < ND_WIDE; j++) {
                const float change = scale * (g[j] * b[j] - a[j] * pull);
                d[j] = beta != 0.0f ? beta * d[j] + change : change;
                dw[nd_own_column(i, j)] += g[j] * a[j] * scale; /* 0 beyond n */
            }
            nd_store_wide(dx, row + i, n - i, wide, d);
        }
    }
    nd_store_columns(partial, dw, n);
}

enum { COLUMNS = 32, COLUMN_PARTS = 8 };

__global__ void add_columns_kernel(nd_floats dw, const float *partial, int64_t parts, int64_t n)
{
    __shared__ float sums[COLUMN_PARTS][COLUMNS];
    const int64_t i = (int64_t)blockIdx.x * COLUMNS + threadIdx.x;
    const int64_t share = (parts + COLUMN_PARTS - 1) / COLUMN_PARTS;
    const int64_t from = (int64_t)threadIdx.y * share;
    float sum = 0.0f;
    for (int64_t p = from; p < from + share && p < parts && i < n; p++)
        sum += partial[p * n + i];
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || i >= n)
        return;
    for (int p = 1; p < COLUMN_PARTS; p++)
        sum += sums[p][threadIdx.x];
    nd_store_one(dw, i, nd_load_one(dw, i) + sum);
}

nd_status nd_cuda_add_columns(nd_cuda *cuda, nd_view dw, const float *partial, int64_t parts,
                              int64_t n)
{
    return ND_CUDA(ND_LAUNCH(add_columns_kernel, dim3((unsigned)nd_ceil(n, COLUMNS)),
                             dim3(COLUMNS, COLUMN_PARTS), 0, cuda->stream, nd_floats_of(dw),
                             partial, parts, n));
}

static nd_status rmsnorm_cuda(nd_backend *b, nd_view y, nd_view r, nd_cview x, nd_cview w)
{
    nd_cuda *cuda = nd_cuda_of(b);
    ND_REQUIRE(nd_all_wide(y.dtype, x.dtype, w.dtype));
    ND_REQUIRE(nd_same_shape(nd_as_const(y), x) && nd_is_float(r.dtype));
    ND_REQUIRE(w.rows == 1 && w.cols == x.cols && r.rows == x.rows && r.cols == 1);
    if (nd_view_count(x) == 0)
        return ND_OK;
    return ND_CUDA(ND_LAUNCH(rmsnorm_kernel, dim3((unsigned)x.rows), dim3(nd_row_threads(x.cols)),
                             0, cuda->stream, nd_floats_of(y), nd_floats_of(r), nd_floats_of(x),
                             nd_floats_of(w), x.cols, nd_aligned(x.cols, y.data, x.data, w.data)));
}

static nd_status rmsnorm_quantize_cuda(nd_backend *b, nd_view q, nd_view a, nd_view r, nd_cview x,
                                       nd_cview w)
{
    nd_cuda *cuda = nd_cuda_of(b);
    ND_REQUIRE(q.dtype == ND_I8 && a.dtype == ND_F32 && nd_is_float(r.dtype));
    ND_REQUIRE(nd_all_wide(x.dtype, w.dtype));
    ND_REQUIRE(nd_same_shape(nd_as_const(q), x) && a.rows == x.rows && r.rows == x.rows);
    ND_REQUIRE(w.rows == 1 && w.cols == x.cols);
    if (nd_view_count(x) == 0)
        return ND_OK;
    return ND_CUDA(ND_LAUNCH(
        rmsnorm_quantize_kernel, dim3((unsigned)x.rows), dim3(nd_row_threads(x.cols)), 0,
        cuda->stream, static_cast<int8_t *>(q.data), static_cast<float *>(a.data), nd_floats_of(r),
        nd_floats_of(x), nd_floats_of(w), x.cols, nd_aligned(x.cols, q.data, x.data, w.data)));
}

static nd_status rmsnorm_backward_cuda(nd_backend *b, nd_view dx, nd_view dw, nd_cview dy,
                                       nd_cview x, nd_cview w, nd_cview r, float beta)
{
    nd_cuda *cuda = nd_cuda_of(b);
    ND_REQUIRE(nd_same_shape(nd_as_const(dx), x) && nd_same_shape(dy, x) && w.cols == x.cols);
    ND_REQUIRE(nd_all_wide(dx.dtype, dy.dtype, x.dtype, w.dtype) &&
               (dw.dtype == ND_F32 || dw.dtype == ND_F64));
    ND_REQUIRE(dw.cols == x.cols && r.rows == x.rows && nd_is_float(r.dtype));
    if (nd_view_count(x) == 0)
        return ND_OK;
    const int64_t n = x.cols, blocks = nd_min(x.rows, ND_ROW_BLOCKS);
    const size_t shared = nd_own_columns_bytes(n);
    void *partial;
    ND_TRY(nd_cuda_allow_shared(cuda, rmsnorm_backward_kernel, shared));
    ND_TRY(nd_cuda_scratch(cuda, (size_t)(blocks * n) * sizeof(float), &partial));
    ND_CUDA_TRY(ND_LAUNCH(rmsnorm_backward_kernel, dim3((unsigned)blocks), dim3(nd_row_threads(n)),
                          shared, cuda->stream, nd_floats_of(dx), static_cast<float *>(partial),
                          nd_floats_of(dy), nd_floats_of(x), nd_floats_of(w), nd_floats_of(r), beta,
                          x.rows, n, nd_aligned(n, dx.data, dy.data, x.data, w.data)));
    return nd_cuda_add_columns(cuda, dw, static_cast<float *>(partial), blocks, n);
}

void nd_cuda_fill_norms(nd_backend_ops *ops)
{
    ops->rmsnorm = rmsnorm_cuda;
    ops->rmsnorm_quantize = rmsnorm_quantize_cuda;
    ops->rmsnorm_backward = rmsnorm_backward_cuda;
}
