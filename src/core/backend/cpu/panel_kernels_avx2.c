/* Packing and microkernels of panel_product.h for AVX2. */
#include "core/backend/cpu/panel_product.h"

#ifdef __AVX2__
#include "core/backend/cpu/panel_quads.h"

enum { ROWS = 6, COLS = 16, QUAD = ND_QUAD, PAIR = 2 };

/* sum += x in place. In assembly, because GCC 12 to 14 keep two copies of each sum of a
 * microkernel, run out of registers, and take 1.6 times as long. */
static inline void add_words(__m256i *sum, __m256i x)
{
    __asm__("vpaddw %1, %0, %0" : "+x"(*sum) : "x"(x));
}

static inline void add_dwords(__m256i *sum, __m256i x)
{
    __asm__("vpaddd %1, %0, %0" : "+x"(*sum) : "x"(x));
}

/* The number of sums of two products, each at most 2 * 128, that fit 16 bits. */
enum { QUADS_IN_16_BITS = 63 };

static void pack_rows_bytes(void *out, const void *a, int64_t row_stride, int64_t col_stride,
                            int64_t rows, int64_t k)
{
    const int8_t *from = a;
    int8_t *to = out;
    (void)row_stride;
    for (int64_t i = 0; i < k; i += QUAD, to += ROWS * QUAD)
        for (int64_t r = 0; r < ROWS; r++) {
            const size_t count = (size_t)nd_fast_min(QUAD, k - i);
            memset(to + r * QUAD, 0, QUAD);
            if (r < rows && count == QUAD)
                memcpy(to + r * QUAD, from + r * col_stride + i, QUAD);
            else if (r < rows)
                memcpy(to + r * QUAD, from + r * col_stride + i, count);
        }
}

static void pack_codes(void *out, const void *b, int64_t row_stride, int64_t col_stride,
                       int64_t cols, int64_t k)
{
    nd_pack_quads(out, b, row_stride, col_stride, cols, k, COLS, ND_OFFSET_OF_CODES);
}

static int32_t minus_sum(const int8_t *a, int64_t k)
{
    int32_t sum = 0;
    for (int64_t i = 0; i < k; i++)
        sum += a[i];
    return -sum;
}

/* c = *start, or c without it, plus sums of 16 bits. */
static inline void add_16_bits(int32_t *c, const int32_t *start, __m256i sums)
{
    const __m256i wide = _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
    const __m256i from = start ? _mm256_set1_epi32(*start) : _mm256_loadu_si256((const void *)c);
    _mm256_storeu_si256((void *)c, _mm256_add_epi32(from, wide));
}

static void multiply_codes(void *sums, int64_t stride, const void *a, const void *b, int64_t k,
                           const int32_t *start)
{
    int32_t *c = sums;
    const int32_t *rows = a;
    const __m256i *cols = b;
    int64_t quads = k / QUAD;
    while (quads > 0) {
        const int64_t count = nd_fast_min(quads, QUADS_IN_16_BITS);
        __m256i sum[ROWS][2];
#pragma GCC unroll 6
        for (int r = 0; r < ROWS; r++)
            sum[r][0] = sum[r][1] = _mm256_setzero_si256();
        for (int64_t q = 0; q < count; q++, rows += ROWS, cols += 2) {
            const __m256i left = _mm256_load_si256(cols), right = _mm256_load_si256(cols + 1);
#pragma GCC unroll 6
            for (int r = 0; r < ROWS; r++) {
                const __m256i row = _mm256_set1_epi32(rows[r]);
                add_words(&sum[r][0], _mm256_maddubs_epi16(left, row));
                add_words(&sum[r][1], _mm256_maddubs_epi16(right, row));
            }
        }
#pragma GCC unroll 6
        for (int r = 0; r < ROWS; r++) {
            add_16_bits(c + r * stride, start ? start + r : NULL, sum[r][0]);
            add_16_bits(c + r * stride + 8, start ? start + r : NULL, sum[r][1]);
        }
        quads -= count;
        start = NULL;
    }
}

static void pack_rows_words(void *out, const void *a, int64_t row_stride, int64_t col_stride,
                            int64_t rows, int64_t k)
{
    const int8_t *from = a;
    int16_t *to = out;
    (void)row_stride;
    for (int64_t i = 0; i < k; i += PAIR, to += ROWS * PAIR)
        for (int64_t r = 0; r < ROWS; r++)
            for (int64_t p = 0; p < PAIR; p++)
                to[r * PAIR + p] = r < rows && i + p < k ? from[r * col_stride + i + p] : 0;
}

static void pack_words(void *out, const void *from, int64_t row_stride, int64_t col_stride,
                       int64_t cols, int64_t k)
{
    const int8_t *b = from;
    int16_t *to = out;
    for (int64_t i = 0; i < k; i += PAIR, to += COLS * PAIR) {
        if (i + PAIR <= k && col_stride == 1 && cols == COLS) {
            const __m128i even = _mm_loadu_si128((const void *)(b + i * row_stride));
            const __m128i odd = _mm_loadu_si128((const void *)(b + (i + 1) * row_stride));
            _mm256_storeu_si256((void *)to, _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(even, odd)));
            _mm256_storeu_si256((void *)(to + 16),
                                _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(even, odd)));
            continue;
        }
        for (int64_t j = 0; j < COLS; j++)
            for (int64_t p = 0; p < PAIR; p++)
                to[j * PAIR + p] =
                    j < cols && i + p < k ? b[(i + p) * row_stride + j * col_stride] : 0;
    }
}

static void multiply_words(void *sums, int64_t stride, const void *a, const void *b, int64_t k,
                           const int32_t *start)
{
    int32_t *c = sums;
    const int32_t *rows = a;
    const __m256i *cols = b;
    __m256i sum[ROWS][2];
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++) {
        sum[r][0] = sum[r][1] = _mm256_setzero_si256();
        if (!start) {
            sum[r][0] = _mm256_loadu_si256((const void *)(c + r * stride));
            sum[r][1] = _mm256_loadu_si256((const void *)(c + r * stride + 8));
        }
    }
    for (int64_t pair = 0; pair < k / PAIR; pair++, rows += ROWS, cols += 2) {
        const __m256i left = _mm256_load_si256(cols), right = _mm256_load_si256(cols + 1);
#pragma GCC unroll 6
        for (int r = 0; r < ROWS; r++) {
            const __m256i row = _mm256_set1_epi32(rows[r]);
            add_dwords(&sum[r][0], _mm256_madd_epi16(left, row));
            add_dwords(&sum[r][1], _mm256_madd_epi16(right, row));
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++) {
        _mm256_storeu_si256((void *)(c + r * stride), sum[r][0]);
        _mm256_storeu_si256((void *)(c + r * stride + 8), sum[r][1]);
    }
}

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

/* Blocks of column panels take 16 KiB, half of a first-level cache. */
static const nd_panel_kind kinds[ND_PANEL_KINDS] = {
    [ND_PANEL_WORDS] = {.rows = ROWS,
                        .cols = COLS,
                        .step = PAIR,
                        .bytes = 2,
                        .block = 512,
                        .pack_rows = pack_rows_words,
                        .pack_cols = pack_words,
                        .multiply = multiply_words},
    [ND_PANEL_CODES] = {.rows = ROWS,
                        .cols = COLS,
                        .step = QUAD,
                        .bytes = 1,
                        .block = 1008,
                        .pack_rows = pack_rows_bytes,
                        .pack_cols = pack_codes,
                        .multiply = multiply_codes,
                        .start_of_row = minus_sum},
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
