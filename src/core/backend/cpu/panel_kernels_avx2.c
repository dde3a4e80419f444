/* Packing and microkernels of panel_product.h for AVX2. */
#include "core/backend/cpu/panel_product.h"

#ifdef __AVX2__
#include <immintrin.h>
#include <string.h>

typedef __m256i vector;
enum { LANES = 8, ROWS = 6, WIDE = 2 };
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define STORE(p, x) _mm256_storeu_si256((__m256i *)(void *)(p), x)
#define SET(x) _mm256_set1_epi32(x)
#define MADD(x, y) _mm256_madd_epi16(x, y)
#define MADD_BYTES(u, s) _mm256_maddubs_epi16(u, s)

#include "core/backend/cpu/panel_kernels_integers.h"

/* Transposes the next 8 values of 8 rows of x into the first 8 columns of out (8 rows of `width`).
 * Repeats the last row for missing ones. */
static void transpose_8x8(float *out, int64_t width, const float *x, int64_t col_stride,
                          int64_t rows)
{
    __m256 r[8], t[8];
    for (int64_t i = 0; i < 8; i++)
        r[i] = _mm256_loadu_ps(x + nd_fast_min(i, rows - 1) * col_stride);
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            r[i + 2 * j] = _mm256_shuffle_ps(t[i + j], t[i + 2 + j], 0x44);
            r[i + 2 * j + 1] = _mm256_shuffle_ps(t[i + j], t[i + 2 + j], 0xee);
        }
    for (int i = 0; i < 4; i++) /* in order: with width 6 a store overlaps the next row */
        _mm256_storeu_ps(out + i * width, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
    for (int i = 0; i < 4; i++)
        _mm256_storeu_ps(out + (i + 4) * width, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
}

static inline void pack_floats(float *out, int64_t width, const float *x, int64_t row_stride,
                               int64_t col_stride, int64_t cols, int64_t k)
{
    int64_t i = 0;
    for (; col_stride == 1 && cols == width && i < k; i++)
        memcpy(out + i * width, x + i * row_stride, (size_t)width * sizeof *out);
    for (; row_stride == 1 && i + 8 <= k; i += 8)
        for (int64_t j = 0; j < width; j += 8)
            transpose_8x8(out + i * width + j, width, x + i + j * col_stride, col_stride, cols - j);
    for (; i < k; i++)
        for (int64_t j = 0; j < width; j++)
            out[i * width + j] = j < cols ? x[i * row_stride + j * col_stride] : 0.0f;
}

static void pack_rows_floats(void *out, const void *a, int64_t row_stride, int64_t col_stride,
                             int64_t rows, int64_t k)
{
    pack_floats(out, ROWS, a, row_stride, col_stride, rows, k);
}

static void pack_cols_floats(void *out, const void *b, int64_t row_stride, int64_t col_stride,
                             int64_t cols, int64_t k)
{
    pack_floats(out, COLS, b, row_stride, col_stride, cols, k);
}

static inline void add_product(__m256 *sum, __m256 x, __m256 y)
{
    __asm__("vfmadd231ps %2, %1, %0" : "+x"(*sum) : "x"(x), "x"(y));
}

static void multiply_floats(void *sums, int64_t stride, const void *a, const void *b, int64_t k,
                            const int32_t *start)
{
    const float *rows = a, *cols = b;
    float *c = sums;
    __m256 sum[ROWS][2];
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++) {
        sum[r][0] = sum[r][1] = _mm256_setzero_ps();
        if (!start) {
            sum[r][0] = _mm256_loadu_ps(c + r * stride);
            sum[r][1] = _mm256_loadu_ps(c + r * stride + 8);
        }
    }
    for (int64_t i = 0; i < k; i++, rows += ROWS, cols += COLS) {
        const __m256 left = _mm256_load_ps(cols), right = _mm256_load_ps(cols + 8);
#pragma GCC unroll 6
        for (int r = 0; r < ROWS; r++) {
            const __m256 row = _mm256_broadcast_ss(rows + r);
            add_product(&sum[r][0], left, row);
            add_product(&sum[r][1], right, row);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++) {
        _mm256_storeu_ps(c + r * stride, sum[r][0]);
        _mm256_storeu_ps(c + r * stride + 8, sum[r][1]);
    }
}

static const nd_panel_kind kinds[ND_PANEL_KINDS] = {
    ND_INTEGER_KINDS,
    [ND_PANEL_FLOATS] = {.rows = ROWS,
                         .cols = COLS,
                         .step = 1,
                         .bytes = 4,
                         .block = 256,
                         .pack_rows = pack_rows_floats,
                         .pack_cols = pack_cols_floats,
                         .multiply = multiply_floats},
};

const nd_panel_kind *nd_panel_kinds_avx2(void)
{
    return kinds;
}
#else
const nd_panel_kind *nd_panel_kinds_avx2(void)
{
    return 0;
}
#endif
