/* Symmetric products: only tiles on and below the diagonal are computed, and mirrored. */
#include "core/backend/cpu/fast_context.h"
#include "core/backend/cpu/fast_matmul.h"
#include "core/backend/cpu/op_families.h"

#include <string.h>

enum { TILE_MAX = 256, TRANSPOSE_BLOCK = 32 };

/* Small tiles leave more out, and several threads find equal shares; large ones run faster. */
static int64_t tile_of(int64_t m)
{
    return m <= 1024 ? 128 : TILE_MAX;
}

/* Tiles (i, j), j <= i, of c [m, m] = alpha x xᵀ, x [m, k] dense. */
typedef struct symmetric {
    nd_view c;
    nd_cview x;
    float alpha;
    int64_t tile, tiles;         /* rows of one, and how many */
    const nd_matmul *made[2][2]; /* [i is last][j is last] */
} symmetric;

static int64_t tile_rows(const symmetric *s, int64_t i)
{
    return nd_fast_min(s->tile, s->c.rows - i * s->tile);
}

static nd_status find_products(nd_cpu_fast *fast, symmetric *s)
{
    for (int64_t i = nd_fast_max(0, s->tiles - 2); i < s->tiles; i++)
        for (int64_t j = nd_fast_max(0, s->tiles - 2); j <= i; j++) {
            const nd_matmul_shape shape = {.m = tile_rows(s, i),
                                           .n = tile_rows(s, j),
                                           .k = s->x.cols,
                                           .lda = s->x.cols,
                                           .ldb = s->x.cols,
                                           .ldc = tile_rows(s, j),
                                           .a = s->x.dtype,
                                           .b = s->x.dtype,
                                           .c = ND_F32,
                                           .transpose_b = 1};
            ND_TRY(nd_matmul_find(fast->matmuls, &shape,
                                  &s->made[i == s->tiles - 1][j == s->tiles - 1]));
        }
    return ND_OK;
}

static void store_element(nd_view c, int64_t at, float value)
{
    if (c.dtype == ND_F32)
        ((float *)c.data)[at] = value;
    else
        ((uint16_t *)c.data)[at] = nd_bf16_from_float(value);
}

/* Writes a finished tile to its place and to the mirrored one. On the diagonal the lower half decides,
 * so that c is symmetric to the bit. */
static void place_tile(const nd_fast_kernels *k, const symmetric *s, int64_t i, int64_t j,
                       float *tile)
{
    const int64_t rows = tile_rows(s, i), cols = tile_rows(s, j), m = s->c.cols;
    k->scale(tile, tile, s->alpha, rows * cols);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t q = r + 1; i == j && q < cols; q++)
            tile[r * cols + q] = tile[q * cols + r];
    for (int64_t r = 0; r < rows; r++) {
        const int64_t at = (i * s->tile + r) * m + j * s->tile;
        if (s->c.dtype == ND_F32)
            memcpy((float *)s->c.data + at, tile + r * cols, (size_t)cols * sizeof *tile);
        else
            k->store_bf16((uint16_t *)s->c.data + at, tile + r * cols, cols);
    }
    for (int64_t q = 0; i != j && q < cols; q++)
        for (int64_t r = 0; r < rows; r++)
            store_element(s->c, (j * s->tile + q) * m + i * s->tile + r, tile[r * cols + q]);
}

/* out [cols, rows] = inᵀ, elements of `size` bytes. */
static void transpose(const nd_cpu_fast *fast, void *out, nd_cview in, size_t size)
{
#pragma omp parallel for num_threads(nd_fast_team(fast, nd_view_count(in))) collapse(2)
    for (int64_t r0 = 0; r0 < in.rows; r0 += TRANSPOSE_BLOCK)
        for (int64_t c0 = 0; c0 < in.cols; c0 += TRANSPOSE_BLOCK)
            for (int64_t c = c0; c < nd_fast_min(c0 + TRANSPOSE_BLOCK, in.cols); c++)
                for (int64_t r = r0; r < nd_fast_min(r0 + TRANSPOSE_BLOCK, in.rows); r++) {
                    if (size == sizeof(float))
                        ((float *)out)[c * in.rows + r] = ((const float *)in.data)[r * in.cols + c];
                    else
                        ((uint16_t *)out)[c * in.rows + r] =
                            ((const uint16_t *)in.data)[r * in.cols + c];
                }
}

/* out [rows, cols] = a, bf16, as f32. */
static void load_rows(const nd_cpu_fast *fast, float *out, nd_cview a)
{
#pragma omp parallel for num_threads(nd_fast_team(fast, nd_view_count(a)))
    for (int64_t row = 0; row < a.rows; row++)
        fast->kernels->load_bf16(out + row * a.cols, (const uint16_t *)a.data + row * a.cols,
                                 a.cols);
}

static nd_status gemm_symmetric_fast(nd_backend *b, nd_view c, nd_cview a, bool transpose_a,
                                     float alpha)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    const int64_t m = transpose_a ? a.cols : a.rows, k = transpose_a ? a.rows : a.cols;
    if (!nd_fast_covers(a.dtype) || !nd_fast_covers(c.dtype))
        return fast->reference.gemm_symmetric(b, c, a, transpose_a, alpha);
    ND_REQUIRE(c.rows == m && c.cols == m);
    symmetric s = {.c = c, .x = a, .alpha = alpha, .tile = tile_of(m)};
    s.tiles = nd_fast_ceil(m, s.tile);
    const bool widen = a.dtype == ND_BF16 && !nd_fast_multiplies_bf16(fast);
    const nd_dtype type = widen ? ND_F32 : a.dtype;
    const size_t bytes = nd_fast_bytes(m * k, nd_dtype_size(type));
    ND_TRY(nd_fast_grow(&fast->shared, (widen ? bytes : 0) + (transpose_a ? bytes : 0)));
    char *memory = fast->shared.memory;
    if (widen) {
        s.x = nd_cview_of(memory, ND_F32, a.rows, a.cols);
        load_rows(fast, (float *)memory, a);
        memory += bytes;
    }
    if (transpose_a) {
        transpose(fast, memory, s.x, nd_dtype_size(type));
        s.x = nd_cview_of(memory, type, m, k);
    }
    ND_TRY(find_products(fast, &s));
    ND_TRY(nd_fast_grow_private(fast, nd_fast_bytes(TILE_MAX * TILE_MAX, sizeof(float))));
    bool ok = true;
#pragma omp parallel for num_threads(fast->threads) schedule(dynamic, 1) reduction(&& : ok)
    for (int64_t index = 0; index < s.tiles * s.tiles; index++) {
        const int64_t i = index / s.tiles, j = index % s.tiles;
        if (j > i)
            continue;
        const int thread = nd_fast_thread();
        float *tile = fast->private[thread].memory;
        const nd_matmul *product = s.made[i == s.tiles - 1][j == s.tiles - 1];
        ok = nd_matmul_run(product, thread, nd_cview_rows(s.x, i * s.tile, 1).data,
                           nd_cview_rows(s.x, j * s.tile, 1).data, tile) &&
             ok;
        place_tile(fast->kernels, &s, i, j, tile);
    }
    ND_FAIL_IF(!ok, ND_EINTERNAL, "oneDNN refused a symmetric product of side %lld", (long long)m);
    return ND_OK;
}

void nd_fast_fill_symmetric(nd_backend_ops *ops)
{
    ops->gemm_symmetric = gemm_symmetric_fast;
}
