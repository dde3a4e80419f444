/* Sums, copies and combinations of elements. */
#include "floats.cuh"

__global__ void add_kernel(nd_floats y, nd_floats x, nd_floats z, int64_t count, bool wide)
{
    ND_GRID_LOOP_WIDE(i, count) {
        float a[ND_WIDE], c[ND_WIDE];
        nd_load_wide(x, i, count - i, wide, a);
        nd_load_wide(z, i, count - i, wide, c);
        for (int j = 0; j < ND_WIDE; j++)
            a[j] += c[j];
        nd_store_wide(y, i, count - i, wide, a);
    }
}

__global__ void axpby_kernel(nd_floats y, float alpha, nd_floats x, float beta, int64_t count,
                             bool wide)
{
    ND_GRID_LOOP_WIDE(i, count) {
        float a[ND_WIDE], c[ND_WIDE];
        nd_load_wide(x, i, count - i, wide, a);
        if (beta != 0.0f)
            nd_load_wide(y, i, count - i, wide, c);
        for (int j = 0; j < ND_WIDE; j++)
            a[j] = beta != 0.0f ? alpha * a[j] + beta * c[j] : alpha * a[j];
        nd_store_wide(y, i, count - i, wide, a);
    }
}

__global__ void divide_by_norm_kernel(nd_floats y, nd_floats x, const double *squares,
                                      double factor, int64_t count, bool wide)
{
    const float scale = (float)(1.0 / ((sqrt(*squares) + 1e-30) * factor));
    ND_GRID_LOOP_WIDE(i, count) {
        float a[ND_WIDE];
        nd_load_wide(x, i, count - i, wide, a);
        for (int j = 0; j < ND_WIDE; j++)
            a[j] *= scale;
        nd_store_wide(y, i, count - i, wide, a);
    }
}

/* 16 bytes, or one, of a row per thread. */
template <typename T>
__global__ void gather_kernel(T *y, const T *x, const int32_t *rows, int64_t count, int64_t width)
{
    ND_GRID_LOOP(at, count * width) {
        const int32_t from = rows[at / width];
        T value;
        memset(&value, 0, sizeof value);
        if (from >= 0)
            value = x[from * width + at % width];
        y[at] = value;
    }
}

enum { SUM_BLOCKS = 1024, SUM_THREADS = 256 };

/* One double per block, then their sum: the order of additions depends on the count alone. */
__global__ void sum_kernel(double *partial, nd_floats x, int64_t count, bool squares, bool wide)
{
    __shared__ double shared[32];
    double sum = 0.0;
    ND_GRID_LOOP_WIDE(i, count) {
        if (x.dtype == ND_F64) {
            for (int64_t j = i; j < i + ND_WIDE && j < count; j++) {
                const double value = static_cast<const double *>(x.data)[j];
                sum += squares ? value * value : value;
            }
            continue;
        }
        float a[ND_WIDE];
        nd_load_wide(x, i, count - i, wide, a);
        for (int j = 0; j < ND_WIDE; j++)
            sum += squares ? (double)a[j] * (double)a[j] : (double)a[j];
    }
    sum = nd_block_sum(sum, shared);
    if (threadIdx.x == 0)
        partial[blockIdx.x] = sum;
}

__global__ void sum_parts_kernel(double *out, const double *partial, int parts)
{
    __shared__ double shared[32];
    double sum = 0.0;
    for (int i = (int)threadIdx.x; i < parts; i += (int)blockDim.x)
        sum += partial[i];
    sum = nd_block_sum(sum, shared);
    if (threadIdx.x == 0)
        *out = sum;
}

static nd_status sum_into(nd_backend *b, nd_view out, nd_cview x, bool squares)
{
    nd_cuda *cuda = nd_cuda_of(b);
    const int64_t count = nd_view_count(x);
    void *partial;
    ND_REQUIRE(out.dtype == ND_F64 && out.rows == 1 && out.cols == 1 && nd_is_float(x.dtype));
    const unsigned blocks = nd_blocks_for(nd_ceil(count, ND_WIDE), SUM_THREADS, SUM_BLOCKS);
    ND_TRY(nd_cuda_scratch(cuda, SUM_BLOCKS * sizeof(double), &partial));
    ND_CUDA_TRY(ND_LAUNCH(sum_kernel, dim3(blocks), dim3(SUM_THREADS), 0, cuda->stream,
                          static_cast<double *>(partial), nd_floats_of(x), count, squares,
                          nd_aligned(count, x.data)));
    return ND_CUDA(ND_LAUNCH(sum_parts_kernel, dim3(1), dim3(SUM_THREADS), 0, cuda->stream,
                             static_cast<double *>(out.data), static_cast<const double *>(partial),
                             (int)blocks));
}

static nd_status sum_squares_cuda(nd_backend *b, nd_view out, nd_cview x)
{
    return sum_into(b, out, x, true);
}

static nd_status sum_cuda(nd_backend *b, nd_view out, nd_cview x)
{
    return sum_into(b, out, x, false);
}

static nd_status add_cuda(nd_backend *b, nd_view y, nd_cview x, nd_cview z)
{
    nd_cuda *cuda = nd_cuda_of(b);
    const int64_t count = nd_view_count(x);
    ND_REQUIRE(nd_all_wide(y.dtype, x.dtype, z.dtype));
    ND_REQUIRE(nd_same_shape(nd_as_const(y), x) && nd_same_shape(x, z));
    return ND_LAUNCH_WIDE(add_kernel, cuda, count, nd_floats_of(y), nd_floats_of(x),
                          nd_floats_of(z), count, nd_aligned(count, y.data, x.data, z.data));
}

nd_status nd_cuda_axpby(nd_cuda *cuda, nd_view y, float alpha, nd_cview x, float beta)
{
    const int64_t count = nd_view_count(x);
    ND_REQUIRE(nd_all_wide(y.dtype, x.dtype));
    ND_REQUIRE(nd_view_count(nd_as_const(y)) == count);
    return ND_LAUNCH_WIDE(axpby_kernel, cuda, count, nd_floats_of(y), alpha, nd_floats_of(x), beta,
                          count, nd_aligned(count, y.data, x.data));
}

static nd_status axpby_cuda(nd_backend *b, nd_view y, float alpha, nd_cview x, float beta)
{
    return nd_cuda_axpby(nd_cuda_of(b), y, alpha, x, beta);
}

static nd_status divide_by_norm_cuda(nd_backend *b, nd_view y, nd_cview x, nd_cview squares,
                                     double factor)
{
    nd_cuda *cuda = nd_cuda_of(b);
    const int64_t count = nd_view_count(x);
    ND_REQUIRE(nd_all_wide(y.dtype, x.dtype));
    ND_REQUIRE(nd_view_count(nd_as_const(y)) == count && squares.dtype == ND_F64);
    return ND_LAUNCH_WIDE(divide_by_norm_kernel, cuda, count, nd_floats_of(y), nd_floats_of(x),
                          static_cast<const double *>(squares.data), factor, count,
                          nd_aligned(count, y.data, x.data));
}

/* In place, a row may be overwritten before another thread reads it: then uses the scratch. */
static nd_status gather_rows_cuda(nd_backend *b, nd_view y, nd_cview x, nd_cview rows)
{
    nd_cuda *cuda = nd_cuda_of(b);
    const size_t bytes = nd_view_bytes(nd_as_const(y)),
                 row = (size_t)x.cols * nd_dtype_size(x.dtype);
    const int32_t *from = static_cast<const int32_t *>(rows.data);
    ND_REQUIRE(y.dtype == x.dtype && y.cols == x.cols && rows.dtype == ND_I32);
    ND_REQUIRE(rows.cols == y.rows);
    if (bytes == 0)
        return ND_OK;
    const char *first = static_cast<const char *>(x.data), *to = static_cast<char *>(y.data);
    const bool overlaps = to < first + nd_view_bytes(x) && first < to + bytes;
    void *target = y.data;
    if (overlaps)
        ND_TRY(nd_cuda_scratch(cuda, bytes, &target));
    if (row % 16 == 0 && ((uintptr_t)x.data | (uintptr_t)target) % 16 == 0) {
        const int64_t width = (int64_t)row / 16;
        ND_TRY(ND_LAUNCH_EACH(gather_kernel<uint4>, cuda, y.rows * width,
                              static_cast<uint4 *>(target), static_cast<const uint4 *>(x.data),
                              from, y.rows, width));
    } else {
        const int64_t width = (int64_t)row;
        ND_TRY(ND_LAUNCH_EACH(gather_kernel<uint8_t>, cuda, y.rows * width,
                              static_cast<uint8_t *>(target), static_cast<const uint8_t *>(x.data),
                              from, y.rows, width));
    }
    if (overlaps)
        ND_CUDA_TRY(cudaMemcpyAsync(y.data, target, bytes, cudaMemcpyDeviceToDevice, cuda->stream));
    return ND_OK;
}

void nd_cuda_fill_elementwise(nd_backend_ops *ops)
{
    ops->sum_squares = sum_squares_cuda;
    ops->sum = sum_cuda;
    ops->add = add_cuda;
    ops->axpby = axpby_cuda;
    ops->divide_by_norm = divide_by_norm_cuda;
    ops->gather_rows = gather_rows_cuda;
}
