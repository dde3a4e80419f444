/* The gated activation, alone and fused with the sub-norm that follows it. */
#include "columns.cuh"

__device__ __forceinline__ float sigmoid(float z)
{
    return 1.0f / (1.0f + expf(-z));
}

__global__ void swiglu_kernel(nd_floats h, nd_floats gate, nd_floats up, int64_t count, bool wide)
{
    ND_GRID_LOOP_WIDE(i, count) {
        float z[ND_WIDE], u[ND_WIDE];
        nd_load_wide(gate, i, count - i, wide, z);
        nd_load_wide(up, i, count - i, wide, u);
        for (int j = 0; j < ND_WIDE; j++)
            z[j] = z[j] * sigmoid(z[j]) * u[j];
        nd_store_wide(h, i, count - i, wide, z);
    }
}

__global__ void swiglu_backward_kernel(nd_floats dgate, nd_floats dup, nd_floats dh, nd_floats gate,
                                       nd_floats up, int64_t count, bool wide)
{
    ND_GRID_LOOP_WIDE(i, count) {
        float z[ND_WIDE], u[ND_WIDE], d[ND_WIDE];
        nd_load_wide(gate, i, count - i, wide, z);
        nd_load_wide(up, i, count - i, wide, u);
        nd_load_wide(dh, i, count - i, wide, d);
        for (int j = 0; j < ND_WIDE; j++) {
            const float s = sigmoid(z[j]);
            u[j] = d[j] * u[j] * s * (1.0f + z[j] * (1.0f - s));
            d[j] = d[j] * z[j] * s;
        }
        nd_store_wide(dgate, i, count - i, wide, u);
        nd_store_wide(dup, i, count - i, wide, d);
    }
}

/* Codes of row t, held normalized in shared memory, from each thread's largest magnitude. */
__device__ __forceinline__ void store_codes(int8_t *q, float *maxima, int64_t t, const float *held,
                                            int64_t n, bool wide, float largest, float *shared)
{
    const int64_t step = (int64_t)blockDim.x * ND_WIDE, first = (int64_t)threadIdx.x * ND_WIDE;
    largest = nd_code_scale(largest, shared);
    if (threadIdx.x == 0)
        maxima[t] = largest;
    const float factor = nd_code_factor(largest);
    for (int64_t i = first; i < n; i += step) {
        int code[ND_WIDE];
        for (int j = 0; j < ND_WIDE; j++)
            code[j] = nd_quantized(held[nd_own_column(i, j)], factor);
        nd_store_codes(q + t * n + i, n - i, wide, code);
    }
}

/* A row's activation stays in shared memory for its three uses, one thread per element. */
__global__ void __launch_bounds__(512, 3)
    swiglu_rmsnorm_quantize_kernel(int8_t *q, float *maxima, nd_floats r, nd_floats gate,
                                   nd_floats up, nd_floats w, int64_t n, bool wide)
{
    ND_DYNAMIC_SHARED(memory);
    __shared__ float shared[32];
    float *h = reinterpret_cast<float *>(memory);
    const int64_t t = blockIdx.x, row = t * n;
    const int64_t step = (int64_t)blockDim.x * ND_WIDE, first = (int64_t)threadIdx.x * ND_WIDE;
    float sum = 0.0f, largest = 0.0f, z[ND_WIDE], u[ND_WIDE];
    for (int64_t i = first; i < n; i += step) {
        nd_load_wide(gate, row + i, n - i, wide, z);
        nd_load_wide(up, row + i, n - i, wide, u);
        for (int j = 0; j < ND_WIDE; j++) {
            const float value = z[j] * sigmoid(z[j]) * u[j];
            sum += value * value;
            h[nd_own_column(i, j)] = value; /* 0 beyond n */
        }
    }
    const float scale = nd_norm_scale(sum, n, shared);
    for (int64_t i = first; i < n; i += step) {
        nd_load_wide(w, i, n - i, wide, u);
        for (int j = 0; j < ND_WIDE; j++) {
            const float value = h[nd_own_column(i, j)] * scale * u[j];
            h[nd_own_column(i, j)] = value;
            largest = nd_larger<true>(largest, fabsf(value));
        }
    }
    if (threadIdx.x == 0)
        nd_store_one(r, t, scale);
    store_codes(q, maxima, t, h, n, wide, largest, shared);
}

/* Rows t, t + blocks, ...; dw is in shared memory as in rmsnorm_backward_kernel, and with codes,
 * `columns` floats behind it, the row's activation. */
template <bool CODES>
__global__ void __launch_bounds__(512, 2)
    swiglu_rmsnorm_backward_kernel(nd_floats dgate, nd_floats dup, float *partial, int8_t *q,
                                   float *maxima, nd_floats r, nd_floats dy, nd_floats gate,
                                   nd_floats up, nd_floats w, int64_t rows, int64_t n,
                                   int64_t columns, bool wide)
{
    ND_DYNAMIC_SHARED(memory);
    __shared__ float shared[32];
    float *dw = reinterpret_cast<float *>(memory), *held = dw + columns;
    const int64_t step = (int64_t)blockDim.x * ND_WIDE, first = (int64_t)threadIdx.x * ND_WIDE;
    nd_clear_columns(dw, n);
    for (int64_t t = blockIdx.x; t < rows; t += gridDim.x) {
        const int64_t row = t * n;
        float sum = 0.0f, dot = 0.0f, largest = 0.0f;
        float z[ND_WIDE], u[ND_WIDE], d[ND_WIDE], b[ND_WIDE];
        for (int64_t i = first; i < n; i += step) {
            nd_load_wide(gate, row + i, n - i, wide, z);
            nd_load_wide(up, row + i, n - i, wide, u);
            nd_load_wide(dy, row + i, n - i, wide, d);
            nd_load_wide(w, i, n - i, wide, b);
            for (int j = 0; j < ND_WIDE; j++) {
                const float h = z[j] * sigmoid(z[j]) * u[j];
                dot += d[j] * b[j] * h;
                if (CODES) {
                    sum += h * h;
                    held[nd_own_column(i, j)] = h; /* 0 beyond n */
                }
            }
        }
        const float scale = CODES ? nd_norm_scale(sum, n, shared) : nd_load_one(r, t);
        const float mean = nd_block_sum(dot, shared) / (float)n;
        const float pull = scale * scale * mean;
        for (int64_t i = first; i < n; i += step) {
            nd_load_wide(gate, row + i, n - i, wide, z);
            nd_load_wide(up, row + i, n - i, wide, u);
            nd_load_wide(dy, row + i, n - i, wide, d);
            nd_load_wide(w, i, n - i, wide, b);
            for (int j = 0; j < ND_WIDE; j++) {
                const float s = sigmoid(z[j]), activated = z[j] * s, h = activated * u[j];
                const float dh = scale * (d[j] * b[j] - h * pull);
                dw[nd_own_column(i, j)] += d[j] * h * scale; /* 0 beyond n */
                u[j] = dh * u[j] * s * (1.0f + z[j] * (1.0f - s));
                d[j] = dh * activated;
                if (CODES) {
                    const float normalized = held[nd_own_column(i, j)] * scale * b[j];
                    held[nd_own_column(i, j)] = normalized;
                    largest = nd_larger<true>(largest, fabsf(normalized));
                }
            }
            nd_store_wide(dgate, row + i, n - i, wide, u);
            nd_store_wide(dup, row + i, n - i, wide, d);
        }
        if (CODES) {
            if (threadIdx.x == 0)
                nd_store_one(r, t, scale);
            store_codes(q, maxima, t, held, n, wide, largest, shared);
        }
    }
    nd_store_columns(partial, dw, n);
}

static nd_status swiglu_cuda(nd_backend *b, nd_view h, nd_cview gate, nd_cview up)
{
    nd_cuda *cuda = nd_cuda_of(b);
    const int64_t count = nd_view_count(gate);
    ND_REQUIRE(nd_all_wide(h.dtype, gate.dtype, up.dtype));
    ND_REQUIRE(nd_same_shape(nd_as_const(h), gate) && nd_same_shape(gate, up));
    return ND_LAUNCH_WIDE(swiglu_kernel, cuda, count, nd_floats_of(h), nd_floats_of(gate),
                          nd_floats_of(up), count, nd_aligned(count, h.data, gate.data, up.data));
}

static nd_status swiglu_backward_cuda(nd_backend *b, nd_view dgate, nd_view dup, nd_cview dh,
                                      nd_cview gate, nd_cview up)
{
    nd_cuda *cuda = nd_cuda_of(b);
    const int64_t count = nd_view_count(gate);
    ND_REQUIRE(nd_same_shape(dh, gate) && nd_same_shape(gate, up));
    ND_REQUIRE(nd_same_shape(nd_as_const(dgate), gate) && nd_same_shape(nd_as_const(dup), gate));
    ND_REQUIRE(nd_all_wide(dgate.dtype, dup.dtype, dh.dtype, gate.dtype, up.dtype));
    if (count == 0)
        return ND_OK;
    const bool wide = nd_aligned(count, dgate.data, dup.data, dh.data, gate.data, up.data);
    return ND_LAUNCH_WIDE(swiglu_backward_kernel, cuda, count, nd_floats_of(dgate),
                          nd_floats_of(dup), nd_floats_of(dh), nd_floats_of(gate), nd_floats_of(up),
                          count, wide);
}

static nd_status swiglu_rmsnorm_quantize_cuda(nd_backend *b, nd_view q, nd_view a, nd_view r,
                                              nd_cview gate, nd_cview up, nd_cview w)
{
    nd_cuda *cuda = nd_cuda_of(b);
    const int64_t n = gate.cols;
    ND_REQUIRE(q.dtype == ND_I8 && a.dtype == ND_F32 && nd_is_float(r.dtype));
    ND_REQUIRE(nd_all_wide(gate.dtype, up.dtype, w.dtype));
    ND_REQUIRE(nd_same_shape(gate, up) && nd_same_shape(nd_as_const(q), gate) && w.cols == n);
    ND_REQUIRE(a.rows == gate.rows && r.rows == gate.rows);
    if (nd_view_count(gate) == 0)
        return ND_OK;
    const size_t shared = nd_own_columns_bytes(n);
    ND_TRY(nd_cuda_allow_shared(cuda, swiglu_rmsnorm_quantize_kernel, shared));
    return ND_CUDA(ND_LAUNCH(swiglu_rmsnorm_quantize_kernel, dim3((unsigned)gate.rows),
                             dim3(nd_row_threads(n)), shared, cuda->stream,
                             static_cast<int8_t *>(q.data), static_cast<float *>(a.data),
                             nd_floats_of(r), nd_floats_of(gate), nd_floats_of(up), nd_floats_of(w),
                             n, nd_aligned(n, q.data, gate.data, up.data, w.data)));
}

static nd_status swiglu_rmsnorm_backward_cuda(nd_backend *b, nd_view dgate, nd_view dup, nd_view dw,
                                              nd_view q, nd_view a, nd_view r, nd_cview dy,
                                              nd_cview gate, nd_cview up, nd_cview w)
{
    nd_cuda *cuda = nd_cuda_of(b);
    const int64_t n = gate.cols, rows = gate.rows;
    ND_REQUIRE(nd_same_shape(dy, gate) && nd_same_shape(gate, up) && r.rows == rows);
    ND_REQUIRE(nd_same_shape(nd_as_const(dgate), gate) && nd_same_shape(nd_as_const(dup), gate));
    ND_REQUIRE(nd_all_wide(dgate.dtype, dup.dtype, dy.dtype, gate.dtype, up.dtype, w.dtype) &&
               w.cols == n);
    ND_REQUIRE((dw.dtype == ND_F32 || dw.dtype == ND_F64) && dw.cols == n && nd_is_float(r.dtype));
    if (nd_view_count(gate) == 0)
        return ND_OK;
    const size_t columns = nd_own_columns_bytes(n);
    const bool codes = q.data && nd_cuda_fits_shared(cuda, 2 * columns);
    if (q.data && !codes)
        ND_TRY(swiglu_rmsnorm_quantize_cuda(b, q, a, r, gate, up, w));
    const auto kernel =
        codes ? swiglu_rmsnorm_backward_kernel<true> : swiglu_rmsnorm_backward_kernel<false>;
    const int64_t blocks = nd_min(rows, ND_ROW_BLOCKS);
    const size_t shared = codes ? 2 * columns : columns;
    const bool wide = nd_aligned(n, dgate.data, dup.data, dy.data, gate.data, up.data, w.data) &&
                      (!codes || nd_aligned(n, q.data));
    void *partial;
    ND_TRY(nd_cuda_allow_shared(cuda, kernel, shared));
    ND_TRY(nd_cuda_scratch(cuda, (size_t)(blocks * n) * sizeof(float), &partial));
    ND_CUDA_TRY(ND_LAUNCH(kernel, dim3((unsigned)blocks), dim3(nd_row_threads(n)), shared,
                          cuda->stream, nd_floats_of(dgate), nd_floats_of(dup),
                          static_cast<float *>(partial), static_cast<int8_t *>(q.data),
                          static_cast<float *>(a.data), nd_floats_of(r), nd_floats_of(dy),
                          nd_floats_of(gate), nd_floats_of(up), nd_floats_of(w), rows, n,
                          (int64_t)(columns / sizeof(float)), wide));
    return nd_cuda_add_columns(cuda, dw, static_cast<float *>(partial), blocks, n);
}

void nd_cuda_fill_swiglu(nd_backend_ops *ops)
{
    ops->swiglu = swiglu_cuda;
    ops->swiglu_rmsnorm_quantize = swiglu_rmsnorm_quantize_cuda;
    ops->swiglu_backward = swiglu_backward_cuda;
    ops->swiglu_rmsnorm_backward = swiglu_rmsnorm_backward_cuda;
}
