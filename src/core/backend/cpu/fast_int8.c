/* Fast layer: the backward products with gradients in 8 bits. */
#include "core/backend/cpu/fast_product.h"
#include "core/backend/cpu/op_families.h"

/* Bytes by which rows of codes are longer where panels copy them: rows 1024 bytes apart would share
 * a few sets of the first-level cache. */
enum { LINE = 64 };

static void encode_rows(nd_cpu_fast *fast, int8_t *codes, float *largest, nd_cview dy)
{
    const nd_fast_kernels *k = fast->kernels;
    const int64_t n = dy.cols;
#pragma omp parallel for num_threads(nd_fast_team(fast, nd_view_count(dy)))
    for (int64_t t = 0; t < dy.rows; t++) {
        const float *row = nd_fast_load(k, dy, t * n, n, fast->private[nd_fast_thread()].memory);
        largest[t] = k->max_magnitude(row, n);
        k->quantize(codes + t * n, row, nd_state_factor(127.0f, largest[t]), n);
    }
}

static nd_status ternary_gemm_dx_int8_onednn(nd_backend *b, nd_view dx, nd_cview dy, nd_cview c,
                                             nd_cview s, float beta)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    if (!nd_fast_covers(dx.dtype) || !nd_fast_covers(dy.dtype) || dy.cols == 0)
        return fast->reference.ternary_gemm_dx_int8(b, dx, dy, c, s, beta);
    ND_REQUIRE(c.dtype == ND_I8 && s.dtype == ND_F32 && s.rows == 1 && s.cols == 1);
    ND_REQUIRE(dx.rows == dy.rows && dx.cols == c.cols && dy.cols == c.rows);
    ND_REQUIRE(beta == 0.0f || beta == 1.0f);
    const size_t code_bytes = nd_fast_bytes(nd_view_count(dy), 1);
    ND_TRY(nd_fast_grow(&fast->shared, code_bytes + nd_fast_bytes(dy.rows, sizeof(float))));
    ND_TRY(nd_fast_grow_private(fast, nd_fast_bytes(dy.cols, sizeof(float))));
    int8_t *codes = fast->shared.memory;
    float *largest = (float *)(codes + code_bytes);
    encode_rows(fast, codes, largest, dy);
    const nd_scaled_sums context = {.c = dx,
                                    .scale = *(const float *)s.data,
                                    .largest = largest,
                                    .accumulate = beta != 0.0f,
                                    .stream = nd_fast_streams(fast, dx)};
    const nd_product product = {.m = dy.rows,
                                .n = c.cols,
                                .k = c.rows,
                                .a = nd_cview_of(codes, ND_I8, dy.rows, dy.cols),
                                .b = c,
                                .ternary = true,
                                .staged = ND_I32,
                                .finish = nd_fast_finish_scaled,
                                .context = &context};
    return nd_fast_multiply(fast, &product);
}

/* A block of tokens of dy, and its transposed codes [out, tokens], rows `stride` apart. */
typedef struct token_block {
    nd_cview dy;
    const float *a;
    int64_t first, tokens, stride;
    int8_t *codes;
    float *largest; /* [out] */
} token_block;

/* One panel of outputs, which stays in cache between its maxima and its codes. */
static void encode_columns(const nd_fast_kernels *k, const token_block *x, int64_t output)
{
    const int64_t n = nd_fast_min(ND_PANEL, x->dy.cols - output);
    float token_factors[ND_INT8_TOKENS], factors[ND_PANEL], *largest = x->largest + output;
    for (int64_t t = 0; t < x->tokens; t++)
        token_factors[t] = x->a[x->first + t] / 127.0f;
    nd_scaled_rows rows = {.first = nd_element_at(x->dy, x->first * x->dy.cols + output),
                           .factors = token_factors,
                           .stride = x->dy.cols,
                           .rows = x->tokens,
                           .bf16 = x->dy.dtype == ND_BF16};
    k->max_panel(largest, &rows, n);
    for (int64_t i = 0; i < n; i++)
        factors[i] = nd_state_factor(127.0f, largest[i]);
    for (int64_t i = 0; i < n; i += ND_STRIP)
        for (int64_t from = 0; from < x->tokens; from += ND_STRIP) {
            rows.first = nd_element_at(x->dy, (x->first + from) * x->dy.cols + output + i);
            rows.factors = token_factors + from;
            rows.rows = nd_fast_min(ND_STRIP, x->tokens - from);
            k->quantize_strip(x->codes + (output + i) * x->stride + from, x->stride, &rows,
                              factors + i, nd_fast_min(ND_STRIP, n - i));
        }
}

/* dw += dyᵀ x over some blocks of tokens, of which the first overwrites unless `accumulate`. */
static nd_status add_blocks(nd_cpu_fast *fast, nd_view dw, const token_block *x, int count,
                            nd_cview q, bool accumulate)
{
    nd_product products[ND_PRODUCTS_MAX];
    nd_scaled_sums contexts[ND_PRODUCTS_MAX];
    const int64_t panels = nd_fast_ceil(dw.rows, ND_PANEL), n = dw.cols;
    for (int i = 0; i < count; i++) {
        contexts[i] = (nd_scaled_sums){
            .c = dw, .scale = 1.0f, .largest = x[i].largest, .accumulate = accumulate || i > 0};
        products[i] = (nd_product){
            .m = dw.rows,
            .n = n,
            .k = x[i].tokens,
            .a = nd_cview_of(x[i].codes, ND_I8, dw.rows, x[i].stride),
            .b = nd_cview_of((const int8_t *)q.data + x[i].first * n, ND_I8, x[i].tokens, n),
            .staged = ND_I32,
            .finish = nd_fast_finish_scaled,
            .context = &contexts[i]};
    }
#pragma omp parallel for num_threads(nd_fast_team(fast, dw.rows *count * x->tokens))
    for (int64_t item = 0; item < count * panels; item++)
        encode_columns(fast->kernels, &x[item / panels], item % panels * ND_PANEL);
    return nd_fast_multiply_several(fast, products, count);
}

static nd_status ternary_gemm_dw_int8_onednn(nd_backend *b, nd_view dw, nd_cview dy, nd_cview q,
                                             nd_cview a, float beta)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    if (dw.dtype != ND_F32 || !nd_fast_covers(dy.dtype) || dy.rows == 0)
        return fast->reference.ternary_gemm_dw_int8(b, dw, dy, q, a, beta);
    ND_REQUIRE(q.dtype == ND_I8 && a.dtype == ND_F32 && a.rows == q.rows && dy.rows == q.rows);
    ND_REQUIRE(dw.rows == dy.cols && dw.cols == q.cols && (beta == 0.0f || beta == 1.0f));
    const int64_t tokens = nd_fast_min(ND_INT8_TOKENS, dy.rows);
    const int64_t at_once = nd_fast_min(ND_PRODUCTS_MAX, nd_fast_ceil(dy.rows, tokens));
    const int64_t stride = fast->panels ? tokens + LINE : tokens;
    const size_t code_bytes = nd_fast_bytes(dw.rows * stride, 1);
    const size_t block_bytes = code_bytes + nd_fast_bytes(dw.rows, sizeof(float));
    ND_TRY(nd_fast_grow(&fast->shared, (size_t)at_once * block_bytes));
    for (int64_t first = 0; first < dy.rows;) {
        const bool accumulate = beta != 0.0f || first > 0;
        token_block x[ND_PRODUCTS_MAX];
        int count = 0;
        for (; count < at_once && first < dy.rows; count++) {
            int8_t *codes = (int8_t *)fast->shared.memory + (size_t)count * block_bytes;
            x[count] = (token_block){.dy = dy,
                                     .a = a.data,
                                     .first = first,
                                     .tokens = nd_fast_min(tokens, dy.rows - first),
                                     .stride = fast->panels ? stride
                                                            : nd_fast_min(tokens, dy.rows - first),
                                     .codes = codes,
                                     .largest = (float *)(codes + code_bytes)};
            first += x[count].tokens;
        }
        ND_TRY(add_blocks(fast, dw, x, count, q, accumulate));
    }
    return ND_OK;
}

void nd_fast_fill_int8(nd_backend_ops *ops)
{
    ops->ternary_gemm_dx_int8 = ternary_gemm_dx_int8_onednn;
    ops->ternary_gemm_dw_int8 = ternary_gemm_dw_int8_onednn;
}
