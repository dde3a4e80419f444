#include "core/backend/cpu/fast_product.h"

#include "core/backend/cpu/fast_matmul.h"
#include "core/backend/cpu/panel_product.h"

#include <string.h>

/* Wide tiles amortise oneDNN's packing of b; several must remain per thread. Tall products get a
 * number of tiles that divides evenly among eight threads, from 2048 rows on among four, whatever m
 * is. */
int64_t nd_fast_tile_rows(int64_t m)
{
    enum { ROWS_MAX = 256, STEP = 16 };
    if (m < 1024)
        return m >= 512 ? 128 : 64;
    const int64_t multiple = m < 2048 ? 8 : 4;
    const int64_t tiles = nd_fast_ceil(nd_fast_ceil(m, ROWS_MAX), multiple) * multiple;
    return nd_fast_ceil(nd_fast_ceil(m, tiles), STEP) * STEP;
}

/* For a triangle small tiles skip more and balance the threads; large ones are faster. */
static int64_t tile_rows(const nd_product *p)
{
    if (p->symmetric)
        return p->m <= 256 ? 64 : p->m <= 1024 ? 128 : 256;
    return p->blocked_a > 0 ? p->blocked_a : nd_fast_tile_rows(p->m);
}

/* Columns of c per tile: all, unless there is one row of tiles or a tile exceeds the cache. */
static int64_t tile_cols(const nd_product *p, int64_t rows)
{
    if (p->symmetric)
        return rows;
    if (p->m <= rows)
        return 256;
    return p->c.data ? p->n : nd_fast_min(p->n, 4096);
}

static nd_matmul_shape tile_shape(const nd_product *p, int64_t rows, int64_t cols, bool packed)
{
    const bool blocked = p->blocked_a > 0;
    nd_matmul_shape s = {.m = rows, .n = cols, .k = p->k};
    s.lda = blocked ? rows : p->a.cols;
    s.ldb = p->b.cols;
    s.ldc = p->c.data ? p->n : cols;
    s.a = p->a.dtype;
    s.b = p->b.dtype;
    s.c = p->c.data ? p->c.dtype : p->staged;
    s.transpose_a = p->transpose_a;
    s.transpose_b = p->transpose_b;
    s.accumulate = p->accumulate;
    s.packed_b = packed;
    return s;
}

/* Converts n integers stored as f32 to i32, in place. */
static void convert_to_integers(void *values, int64_t n)
{
    const float *in = values;
    int32_t *out = values;
    for (int64_t i = 0; i < n; i++) {
        float x;
        memcpy(&x, in + i, sizeof x);
        const int32_t integer = (int32_t)x;
        memcpy(out + i, &integer, sizeof integer);
    }
}

typedef struct tiling {
    int64_t rows, cols;             /* of a whole tile */
    int64_t row_count, col_count;   /* numbers of tiles */
    const void *packed;             /* b for all tiles, or NULL */
    const nd_matmul *matmuls[2][2]; /* [last row?][last column?] */
} tiling;

static bool run_tile(nd_cpu_fast *fast, const nd_product *p, const tiling *t, int64_t index,
                     int thread)
{
    const int64_t i = index / t->col_count, j = index % t->col_count;
    const nd_matmul *matmul = t->matmuls[i == t->row_count - 1][j == t->col_count - 1];
    nd_tile tile = {.row = i * t->rows, .col = j * t->cols};
    tile.rows = nd_fast_min(t->rows, p->m - tile.row);
    tile.cols = nd_fast_min(t->cols, p->n - tile.col);
    if (p->symmetric && tile.col >= tile.row + tile.rows)
        return true;
    const char *a = p->blocked_a > 0 ? nd_element_at(p->a, tile.row * p->k)
                    : p->transpose_a ? nd_element_at(p->a, tile.row)
                                     : nd_element_at(p->a, tile.row * p->a.cols);
    const char *b = t->packed
                        ? t->packed
                        : nd_element_at(p->b, p->transpose_b ? tile.col * p->b.cols : tile.col);
    if (!p->c.data) {
        tile.values = fast->private[thread].memory;
        tile.stride = tile.cols;
        if (!nd_matmul_run(matmul, thread, a, b, tile.values))
            return false;
        if (p->in_floats)
            convert_to_integers(tile.values, tile.rows * tile.cols);
        p->finish(fast->kernels, p->context, tile);
        return true;
    }
    char *c = p->c.data;
    c += (size_t)(tile.row * p->n + tile.col) * nd_dtype_size(p->c.dtype);
    return nd_matmul_run(matmul, thread, a, b, c);
}

static nd_status find_tiles(nd_cpu_fast *fast, const nd_product *p, tiling *t, bool packed)
{
    for (int last_row = 0; last_row < 2; last_row++)
        for (int last_col = 0; last_col < 2; last_col++) {
            const int64_t rows = last_row ? p->m - (t->row_count - 1) * t->rows : t->rows;
            const int64_t cols = last_col ? p->n - (t->col_count - 1) * t->cols : t->cols;
            if ((!last_row && t->row_count == 1) || (!last_col && t->col_count == 1))
                continue;
            const nd_matmul_shape shape = tile_shape(p, rows, cols, packed);
            ND_TRY(nd_matmul_find(fast->matmuls, &shape, &t->matmuls[last_row][last_col]));
        }
    return ND_OK;
}

/* oneDNN packs an unpacked b for every tile. Packing it once pays if many tiles share it and oneDNN
 * reorders its layout fast: rows of k, in bf16 or f32. */
static nd_status pack_shared_operand(nd_cpu_fast *fast, const nd_product *p, tiling *t)
{
    enum { MIN_ROWS = 512 };
    if (p->m < MIN_ROWS || p->transpose_b || p->b.dtype == ND_I8 || t->col_count != 1)
        return ND_OK;
    tiling packed = *t;
    ND_TRY(find_tiles(fast, p, &packed, true));
    const nd_matmul *whole = packed.matmuls[0][1], *last = packed.matmuls[1][1];
    if (!whole || !nd_matmul_same_packing(whole, last))
        return ND_OK;
    ND_TRY(nd_fast_grow(&fast->packed, nd_matmul_packed_bytes(whole)));
    ND_FAIL_IF(!nd_matmul_pack_by_all(whole, fast->threads, p->b.data, fast->packed.memory),
               ND_EINTERNAL, "oneDNN refused to pack [%lld, %lld]", (long long)p->b.rows,
               (long long)p->b.cols);
    packed.packed = fast->packed.memory;
    *t = packed;
    return ND_OK;
}

static void as_floats(nd_cpu_fast *fast, float *out, nd_cview x)
{
#pragma omp parallel for num_threads(fast->threads)
    for (int64_t row = 0; row < x.rows; row++)
        fast->kernels->load_i8(out + row * x.cols, (const int8_t *)x.data + row * x.cols, 1.0f,
                               x.cols);
}

static nd_status multiply(nd_cpu_fast *fast, const nd_product *p, int count);

/* Exact where oneDNN's integers are not: every partial sum is an integer below 2^24. */
static nd_status multiply_in_floats(nd_cpu_fast *fast, const nd_product *p)
{
    ND_REQUIRE(p->k * 128 * (p->ternary ? 1 : 128) <= 1 << 24);
    const size_t a_bytes = nd_fast_bytes(nd_view_count(p->a), sizeof(float));
    ND_TRY(
        nd_fast_grow(&fast->floats, a_bytes + nd_fast_bytes(nd_view_count(p->b), sizeof(float))));
    float *a = fast->floats.memory, *b = (float *)((char *)a + a_bytes);
    as_floats(fast, a, p->a);
    as_floats(fast, b, p->b);
    nd_product floats = *p;
    floats.a = nd_cview_of(a, ND_F32, p->a.rows, p->a.cols);
    floats.b = nd_cview_of(b, ND_F32, p->b.rows, p->b.cols);
    floats.staged = ND_F32;
    floats.in_floats = true;
    return multiply(fast, &floats, 1);
}

/* Up to AVX-512 without VNNI panels do all integers. Otherwise packing pays from some number of
 * rows on. With AMX panels do all short sums: at a few, such as those of 63 bf16 values or 127
 * bytes, oneDNN 2.6 stops with an illegal instruction. */
bool nd_fast_in_panels(const nd_cpu_fast *fast, const nd_product *p)
{
    enum { MIN_ROWS = 64, MIN_INNER_BYTES = 128 };
    const nd_panel_kind *kind = nd_panel_kind_of(fast, p);
    if (!kind || !p->finish)
        return false;
    if (p->a.dtype == ND_I8 && fast->isa < ND_CPU_ISA_AVX512_VNNI)
        return true;
    if (fast->isa == ND_CPU_ISA_AMX && p->k * kind->bytes < MIN_INNER_BYTES)
        return true;
    return p->m >= MIN_ROWS;
}

nd_status nd_fast_multiply_several(nd_cpu_fast *fast, const nd_product *p, int count)
{
    if (p->m == 0 || p->n == 0)
        return ND_OK;
    const bool exact = p->ternary ? fast->exact_ternary : fast->exact_int8;
    if (p->a.dtype != ND_I8 || exact)
        return nd_fast_in_panels(fast, p) ? nd_panel_multiply(fast, p, count)
                                          : multiply(fast, p, count);
    for (int i = 0; i < count; i++)
        ND_TRY(multiply_in_floats(fast, &p[i]));
    return ND_OK;
}

nd_status nd_fast_multiply(nd_cpu_fast *fast, const nd_product *p)
{
    return nd_fast_multiply_several(fast, p, 1);
}

static nd_status plan_tiles(nd_cpu_fast *fast, const nd_product *p, bool pack, tiling *t)
{
    *t = (tiling){.rows = tile_rows(p)};
    t->cols = tile_cols(p, t->rows);
    t->row_count = nd_fast_ceil(p->m, t->rows);
    t->col_count = nd_fast_ceil(p->n, t->cols);
    if (pack)
        ND_TRY(pack_shared_operand(fast, p, t));
    return t->packed ? ND_OK : find_tiles(fast, p, t, false);
}

static nd_status multiply(nd_cpu_fast *fast, const nd_product *p, int count)
{
    tiling t[ND_PRODUCTS_MAX];
    ND_REQUIRE(count <= ND_PRODUCTS_MAX);
    for (int i = 0; i < count; i++)
        ND_TRY(plan_tiles(fast, &p[i], count == 1, &t[i]));
    if (!p->c.data)
        ND_TRY(nd_fast_grow_private(fast, nd_fast_bytes(t->rows * t->cols, 4)));
    bool ok = true;
#pragma omp parallel for num_threads(fast->threads) schedule(dynamic, 1) reduction(&& : ok)
    for (int64_t index = 0; index < t->row_count * t->col_count; index++)
        for (int i = 0; ok && i < count; i++)
            ok = run_tile(fast, &p[i], &t[i], index, nd_fast_thread());
    ND_FAIL_IF(!ok, ND_EINTERNAL, "oneDNN refused a product [%lld, %lld, %lld]", (long long)p->m,
               (long long)p->n, (long long)p->k);
    return ND_OK;
}
