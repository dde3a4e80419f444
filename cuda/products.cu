/* Dense products. Operands of one type go to cuBLASLt unchanged; of a mixed pair the f32 operand is
 * rounded to bf16; f32 operands with a bf16 result use an f32 buffer. */
#include "floats.cuh"

enum { PLAIN_TILE = 16 };

__device__ __forceinline__ float plain_element(const void *x, int dtype, int64_t i)
{
    if (dtype == ND_I8)
        return (float)static_cast<const int8_t *>(x)[i];
    if (dtype == ND_BF16)
        return nd_float_of_bf16(static_cast<const uint16_t *>(x)[i]);
    return static_cast<const float *>(x)[i];
}

__global__ void plain_product_kernel(nd_matmul p)
{
    __shared__ float left[PLAIN_TILE][PLAIN_TILE + 1], right[PLAIN_TILE][PLAIN_TILE + 1];
    const int tx = (int)threadIdx.x, ty = (int)threadIdx.y;
    const int64_t row = (int64_t)blockIdx.y * PLAIN_TILE + ty;
    const int64_t column = (int64_t)blockIdx.x * PLAIN_TILE + tx;
    float sum = 0.0f;
    for (int64_t first = 0; first < p.k; first += PLAIN_TILE) {
        const int64_t a_at = first + tx, b_at = first + ty;
        left[ty][tx] = 0.0f;
        right[ty][tx] = 0.0f;
        if (row < p.m && a_at < p.k)
            left[ty][tx] = plain_element(p.a, (int)p.type,
                                         p.transpose_a ? a_at * p.m + row : row * p.k + a_at);
        if (column < p.n && b_at < p.k)
            right[ty][tx] = plain_element(
                p.b, (int)p.type, p.transpose_b ? column * p.k + b_at : b_at * p.n + column);
        __syncthreads();
        for (int i = 0; i < PLAIN_TILE; i++)
            sum += left[ty][i] * right[i][tx];
        __syncthreads();
    }
    if (row >= p.m || column >= p.n)
        return;
    const int64_t at = row * p.n + column;
    const nd_floats c = {p.c, (int)p.c_type};
    const float product = (p.alpha_device ? *p.alpha_device : p.alpha) * sum;
    nd_store_one(c, at, p.beta == 0.0f ? product : product + p.beta * nd_load_one(c, at));
}

/* With the plain kernel, for what the library does not support: correct and slow. */
static nd_status matmul_plain(nd_cuda *cuda, const nd_matmul *call)
{
    const dim3 grid((unsigned)nd_ceil(call->n, PLAIN_TILE), (unsigned)nd_ceil(call->m, PLAIN_TILE));
    ND_REQUIRE(grid.y <= 65535);
    return ND_CUDA(ND_LAUNCH(plain_product_kernel, grid, dim3(PLAIN_TILE, PLAIN_TILE), 0,
                             cuda->stream, *call));
}

nd_status nd_cuda_product(nd_cuda *cuda, const nd_matmul *call)
{
    bool done = false;
    ND_TRY(nd_cuda_matmul(cuda, call, &done));
    return done ? ND_OK : matmul_plain(cuda, call);
}

/* Bytes for converted operands of one product. */
struct conversions {
    size_t a, b, c;
};

static conversions needed(nd_dtype type, nd_cview a, nd_cview bb, nd_view c)
{
    conversions need = {0, 0, 0};
    if (a.dtype != type)
        need.a = nd_scratch_bytes(nd_view_count(a), nd_dtype_size(type));
    if (bb.dtype != type)
        need.b = nd_scratch_bytes(nd_view_count(bb), nd_dtype_size(type));
    if (type == ND_F32 && c.dtype == ND_BF16)
        need.c = nd_scratch_bytes(c.rows * c.cols, sizeof(float));
    return need;
}

static nd_status converted(nd_cuda *cuda, nd_cview x, nd_dtype type, char *scratch,
                           const void **out)
{
    *out = x.data;
    if (x.dtype == type)
        return ND_OK;
    *out = scratch;
    return nd_cuda_axpby(cuda, nd_view_of(scratch, type, x.rows, x.cols), 1.0f, x, 0.0f);
}

static nd_status gemm_cuda(nd_backend *b, nd_view c, nd_cview a, bool transpose_a, nd_cview bb,
                           bool transpose_b, float alpha, float beta)
{
    nd_cuda *cuda = nd_cuda_of(b);
    const int64_t inner = transpose_a ? a.rows : a.cols;
    ND_REQUIRE(nd_all_wide(c.dtype, a.dtype, bb.dtype));
    ND_REQUIRE((transpose_a ? a.cols : a.rows) == c.rows);
    ND_REQUIRE((transpose_b ? bb.rows : bb.cols) == c.cols);
    ND_REQUIRE((transpose_b ? bb.cols : bb.rows) == inner);
    if (c.rows * c.cols == 0)
        return ND_OK;
    if (inner == 0 && beta == 0.0f)
        return b->ops.zero(b, c.data, nd_view_bytes(nd_as_const(c)));
    if (inner == 0)
        return nd_cuda_axpby(cuda, c, 0.0f, nd_as_const(c), beta);
    const nd_dtype type = a.dtype == ND_F32 && bb.dtype == ND_F32 ? ND_F32 : ND_BF16;
    const conversions need = needed(type, a, bb, c);
    void *memory = NULL;
    if (need.a + need.b + need.c > 0)
        ND_TRY(nd_cuda_scratch(cuda, need.a + need.b + need.c, &memory));
    char *scratch = static_cast<char *>(memory);
    nd_matmul product;
    memset(&product, 0, sizeof product);
    product.type = type;
    product.c_type = need.c ? ND_F32 : c.dtype;
    product.transpose_a = transpose_a;
    product.transpose_b = transpose_b;
    product.m = c.rows;
    product.n = c.cols;
    product.k = inner;
    ND_TRY(converted(cuda, a, type, scratch, &product.a));
    ND_TRY(converted(cuda, bb, type, scratch + need.a, &product.b));
    product.c = need.c ? scratch + need.a + need.b : c.data;
    product.alpha = alpha;
    product.beta = need.c ? 0.0f : beta;
    ND_TRY(nd_cuda_product(cuda, &product));
    if (!need.c)
        return ND_OK;
    return nd_cuda_axpby(cuda, c, 1.0f, nd_cview_of(product.c, ND_F32, c.rows, c.cols), beta);
}

void nd_cuda_fill_products(nd_backend_ops *ops)
{
    ops->gemm = gemm_cuda;
}
