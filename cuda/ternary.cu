/* Products of ternary weights.
 *
 * Forward: int8 codes on tensor cores (int8_scaled.cu, int8_product.cu). Backward: codes and
 * quantized activations are exact in bf16 (integers up to 256), so with bf16 gradients dX = s (dY
 * C) rounds only the result, and dW rounds x̂ = q a/127 once. With f32 gradients both are f32
 * products. 8-bit gradients: int8_backward.cu. */
#include "floats.cuh"
#include "int8_product.cuh"

/* x = q a/127, or the codes themselves if a is NULL. */
__global__ void expand_kernel(nd_floats x, const int8_t *q, const float *a, int64_t rows, int64_t n,
                              bool wide)
{
    const int64_t count = rows * n;
    ND_GRID_LOOP_WIDE(i, count) {
        int code[ND_WIDE];
        float out[ND_WIDE];
        nd_load_codes(q + i, count - i, wide, code);
        for (int j = 0; j < ND_WIDE; j++)
            out[j] = (float)code[j];
        if (a && wide) {
            const float factor = a[i / n] / 127.0f;
            for (int j = 0; j < ND_WIDE; j++)
                out[j] *= factor;
        } else if (a) {
            for (int j = 0; j < ND_WIDE; j++)
                out[j] *= i + j < count ? a[(i + j) / n] / 127.0f : 0.0f;
        }
        nd_store_wide(x, i, count - i, wide, out);
    }
}

static nd_status expand(nd_cuda *cuda, nd_view x, nd_cview q, const float *a)
{
    const int64_t count = nd_view_count(q);
    const bool wide = nd_aligned(q.cols, x.data, q.data);
    return ND_LAUNCH_WIDE(expand_kernel, cuda, count, nd_floats_of(x),
                          static_cast<const int8_t *>(q.data), a, q.rows, q.cols, wide);
}

static bool scales_fit(nd_cview c, nd_cview s)
{
    return s.dtype == ND_F32 && ((s.rows == 1 && s.cols == 1) ||
                                 (s.rows == c.rows && s.cols > 0 && c.cols % s.cols == 0));
}

static bool is_single(nd_cview s)
{
    return s.rows == 1 && s.cols == 1;
}

static nd_status ternary_gemm_cuda(nd_backend *b, nd_view y, nd_cview q, nd_cview a, nd_cview c,
                                   nd_cview s)
{
    nd_cuda *cuda = nd_cuda_of(b);
    ND_REQUIRE(nd_all_wide(y.dtype) && q.dtype == ND_I8 && a.dtype == ND_F32);
    ND_REQUIRE(c.dtype == ND_I8 && y.rows == q.rows && a.rows == q.rows);
    ND_REQUIRE(y.cols == c.rows && q.cols == c.cols && scales_fit(c, s));
    if (y.rows * y.cols == 0)
        return ND_OK;
    nd_int8_product product;
    memset(&product, 0, sizeof product);
    product.y = y;
    product.left = static_cast<const int8_t *>(q.data);
    product.right = static_cast<const int8_t *>(c.data);
    product.k = q.cols;
    product.a = static_cast<const float *>(a.data);
    product.s = static_cast<const float *>(s.data);
    product.groups = is_single(s) ? 0 : s.cols;
    if (product.groups > 0)
        return nd_cuda_int8_product(b, &product);
    void *sums;
    ND_TRY(nd_cuda_scratch(cuda, nd_cuda_int8_scratch(cuda, y.rows, y.cols), &sums));
    return nd_cuda_int8_scaled(b, &product, sums);
}

static nd_status ternary_gemm_dx_cuda(nd_backend *b, nd_view dx, nd_cview dy, nd_cview c,
                                      nd_cview s, float beta)
{
    nd_cuda *cuda = nd_cuda_of(b);
    ND_REQUIRE(nd_all_wide(dx.dtype, dy.dtype) && c.dtype == ND_I8);
    ND_REQUIRE(dx.rows == dy.rows && dx.cols == c.cols && dy.cols == c.rows && scales_fit(c, s));
    if (dx.rows * dx.cols == 0)
        return ND_OK;
    const bool narrow_result = dy.dtype == ND_F32 && dx.dtype == ND_BF16;
    const size_t weight = nd_scratch_bytes(nd_view_count(c), nd_dtype_size(dy.dtype));
    const size_t result = narrow_result ? nd_scratch_bytes(dx.rows * dx.cols, sizeof(float)) : 0;
    void *scratch;
    ND_TRY(nd_cuda_scratch(cuda, weight + result, &scratch));
    const nd_view w = nd_view_of(scratch, dy.dtype, c.rows, c.cols);
    if (is_single(s))
        ND_TRY(expand(cuda, w, c, NULL));
    else
        ND_TRY(b->ops.dequantize_codes(b, w, c, s));
    nd_matmul product;
    memset(&product, 0, sizeof product);
    product.type = dy.dtype;
    product.c_type = narrow_result ? ND_F32 : dx.dtype;
    product.m = dx.rows;
    product.n = dx.cols;
    product.k = dy.cols;
    product.a = dy.data;
    product.b = w.data;
    product.c = narrow_result ? static_cast<char *>(scratch) + weight : dx.data;
    product.alpha = 1.0f;
    product.alpha_device = is_single(s) ? static_cast<const float *>(s.data) : NULL;
    product.beta = narrow_result ? 0.0f : beta;
    ND_TRY(nd_cuda_product(cuda, &product));
    if (!narrow_result)
        return ND_OK;
    return nd_cuda_axpby(cuda, dx, 1.0f, nd_cview_of(product.c, ND_F32, dx.rows, dx.cols), beta);
}

static nd_status ternary_gemm_dw_cuda(nd_backend *b, nd_view dw, nd_cview dy, nd_cview q,
                                      nd_cview a, float beta)
{
    nd_cuda *cuda = nd_cuda_of(b);
    ND_REQUIRE(dw.dtype == ND_F32 && nd_all_wide(dy.dtype));
    ND_REQUIRE(q.dtype == ND_I8 && a.dtype == ND_F32 && a.rows == q.rows && dy.rows == q.rows);
    ND_REQUIRE(dw.rows == dy.cols && dw.cols == q.cols);
    if (dw.rows * dw.cols == 0)
        return ND_OK;
    if (q.rows == 0) /* without tokens only beta applies */
        return beta != 0.0f ? ND_OK : b->ops.zero(b, dw.data, nd_view_bytes(nd_as_const(dw)));
    void *scratch;
    ND_TRY(nd_cuda_scratch(cuda, nd_scratch_bytes(nd_view_count(q), nd_dtype_size(dy.dtype)),
                           &scratch));
    const nd_view x = nd_view_of(scratch, dy.dtype, q.rows, q.cols);
    ND_TRY(expand(cuda, x, q, static_cast<const float *>(a.data)));
    nd_matmul product;
    memset(&product, 0, sizeof product);
    product.type = dy.dtype;
    product.c_type = ND_F32;
    product.transpose_a = true;
    product.m = dw.rows;
    product.n = dw.cols;
    product.k = dy.rows;
    product.a = dy.data;
    product.b = x.data;
    product.c = dw.data;
    product.alpha = 1.0f;
    product.beta = beta;
    return nd_cuda_product(cuda, &product);
}

void nd_cuda_fill_ternary(nd_backend_ops *ops)
{
    ops->ternary_gemm = ternary_gemm_cuda;
    ops->ternary_gemm_dx = ternary_gemm_dx_cuda;
    ops->ternary_gemm_dw = ternary_gemm_dw_cuda;
}
