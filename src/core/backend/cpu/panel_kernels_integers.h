/* The panel kernels of 8-bit integers, for vectors of one width, with VNNI or without. The
 * including file defines
 *
 *   vector, LANES              the type of a vector, and how many 32-bit lanes it has
 *   ROWS, WIDE                 rows of a panel, a multiple of 3; vectors in a row of a panel of b
 *   LOAD(p), STORE(p, x)       a vector at any address
 *   SET(x)                     the same 32-bit integer in all lanes
 *   DOT(sum, u, s)             with VNNI: sum plus, in each lane, four products of unsigned by
 *                              signed bytes; of signed bytes where DOT_OF_SIGNED is defined, too
 *   MADD, MADD_BYTES           without: sums of two products, of 16-bit integers in 32 bits, and of
 *                              unsigned by signed bytes in 16 bits
 *
 * and puts ND_INTEGER_KINDS into its table. */
#include "core/backend/cpu/panel_quads.h"

enum { COLS = WIDE * LANES, SPAN = LANES * ND_QUAD /* bytes of a vector */ };

/* sum += x in place. In assembly, because GCC 12 to 14 keep two copies of each sum of a
 * microkernel, run out of registers, and take 1.6 times as long. */
#define ADD_IN_PLACE(instruction, sum, x) __asm__(instruction " %1, %0, %0" : "+v"(sum) : "v"(x))

#ifndef DOT
#define ADD_PRODUCTS(sum, x, y) ADD_IN_PLACE("vpaddd", sum, MADD(x, y))
#else
#define ADD_PRODUCTS(sum, x, y) (sum = DOT(sum, x, y))
#endif

static void pack_rows_bytes(void *out, const void *a, int64_t row_stride, int64_t col_stride,
                            int64_t rows, int64_t k)
{
    const int64_t padded = nd_fast_ceil(k, ND_QUAD) * ND_QUAD;
    char *to = out;
    (void)row_stride;
    for (int64_t r = 0; r < ROWS; r++, to += padded) {
        const int64_t count = r < rows ? k : 0;
        if (count > 0)
            memcpy(to, (const char *)a + r * col_stride, (size_t)count);
        if (count < padded)
            memset(to + count, 0, (size_t)(padded - count));
    }
}

#ifndef DOT_OF_SIGNED
static void pack_codes(void *out, const void *b, int64_t row_stride, int64_t col_stride,
                       int64_t cols, int64_t k)
{
    nd_pack_quads(out, b, row_stride, col_stride, cols, k, COLS, ND_OFFSET_OF_CODES);
}

/* Sums of the bytes of each lane of x. */
static inline vector sums_of_lanes(vector x)
{
    const vector ones = SET(0x01010101);
#ifdef DOT
    return DOT(SET(0), ones, x);
#else
    return MADD(MADD_BYTES(ones, x), SET(0x00010001));
#endif
}

/* Where the sums of a row of a start. */
static int32_t start_of_row(const int8_t *a, int64_t k, int32_t offset)
{
    int32_t lanes[LANES], sum = 0;
    vector sums = SET(0);
    int64_t i = 0;
    for (; i + SPAN <= k; i += SPAN)
        ADD_IN_PLACE("vpaddd", sums, sums_of_lanes(LOAD(a + i)));
    for (; i < k; i++)
        sum += a[i];
    STORE(lanes, sums);
    for (i = 0; i < LANES; i++)
        sum += lanes[i];
    return -offset * sum;
}

static int32_t start_of_codes(const int8_t *a, int64_t k)
{
    return start_of_row(a, k, ND_OFFSET_OF_CODES);
}
#endif

static inline vector four_of(const char *row)
{
    int32_t four;
    memcpy(&four, row, sizeof four);
    return SET(four);
}

/* ROWS rows of a of `bytes` each, one after another. Addresses count from every third. */
#define FIRST_ROWS(row, a, bytes)                                                                  \
    const char *row[ROWS / 3];                                                                     \
    _Pragma("GCC unroll 4") for (int r = 0; r < ROWS / 3; r++) row[r] =                            \
        (const char *)(a) + 3 * r * (bytes)
#define LOAD_ALL(x, p)                                                                             \
    vector x[WIDE];                                                                                \
    _Pragma("GCC unroll 4") for (int j = 0; j < WIDE; j++) x[j] = LOAD((p) + j * SPAN)
#define ROW_AT(row, r, bytes, i) (row[(r) / 3] + (r) % 3 * (bytes) + (i))

static void multiply(void *sums, int64_t stride, const void *a, const void *b, int64_t bytes,
                     const int32_t *start)
{
    int32_t *c = sums;
    const char *cols = b;
    vector sum[ROWS][WIDE];
    FIRST_ROWS(row, a, bytes);
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < WIDE; j++)
            sum[r][j] = start ? SET(start[r]) : LOAD(c + r * stride + j * LANES);
    for (int64_t i = 0; i < bytes; i += ND_QUAD, cols += WIDE * SPAN) {
        LOAD_ALL(x, cols);
#pragma GCC unroll 12
        for (int r = 0; r < ROWS; r++) {
            const vector four = four_of(ROW_AT(row, r, bytes, i));
#pragma GCC unroll 4
            for (int j = 0; j < WIDE; j++)
                ADD_PRODUCTS(sum[r][j], x[j], four);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < WIDE; j++)
            STORE(c + r * stride + j * LANES, sum[r][j]);
}

/* A block of a column panel takes half of a first-level cache of 32 KiB. */
#define ND_BYTES(packing, start)                                                                   \
    {                                                                                              \
        .rows = ROWS, .cols = COLS, .step = ND_QUAD, .bytes = 1, .block = 16384 / COLS,            \
        .pack_rows = pack_rows_bytes, .pack_cols = packing, .multiply = multiply,                  \
        .start_of_row = start                                                                      \
    }

#ifdef DOT_OF_SIGNED
static void pack_bytes(void *out, const void *b, int64_t row_stride, int64_t col_stride,
                       int64_t cols, int64_t k)
{
    nd_pack_quads(out, b, row_stride, col_stride, cols, k, COLS, 0);
}

#define ND_INTEGER_KINDS                                                                           \
    [ND_PANEL_WORDS] = ND_BYTES(pack_bytes, NULL), [ND_PANEL_CODES] = ND_BYTES(pack_bytes, NULL)
#elif defined(DOT)
static void pack_integers(void *out, const void *b, int64_t row_stride, int64_t col_stride,
                          int64_t cols, int64_t k)
{
    nd_pack_quads(out, b, row_stride, col_stride, cols, k, COLS, ND_OFFSET_OF_INTEGERS);
}

static int32_t start_of_integers(const int8_t *a, int64_t k)
{
    return start_of_row(a, k, ND_OFFSET_OF_INTEGERS);
}

#define ND_INTEGER_KINDS                                                                           \
    [ND_PANEL_WORDS] = ND_BYTES(pack_integers, start_of_integers), [ND_PANEL_CODES] = ND_BYTES(    \
                                                                       pack_codes, start_of_codes)
#else
/* The number of sums of two products, each at most 2 * 128, that fit 16 bits. */
enum { PAIR = 2, QUADS_IN_16_BITS = 63 };

/* c = *start, or c without it, plus sums of 16 bits. */
static inline void add_16_bits(int32_t *c, const int32_t *start, vector sums)
{
    vector sum = start ? SET(*start) : LOAD(c);
    ADD_IN_PLACE("vpaddd", sum, MADD(sums, SET(0x00010001)));
    STORE(c, sum);
}

static void multiply_codes(void *sums, int64_t stride, const void *a, const void *b, int64_t k,
                           const int32_t *start)
{
    int32_t *c = sums;
    const char *cols = b;
    FIRST_ROWS(row, a, k);
    for (int64_t first = 0; first < k; first += QUADS_IN_16_BITS * ND_QUAD, start = NULL) {
        const int64_t end = nd_fast_min(k, first + QUADS_IN_16_BITS * ND_QUAD);
        vector sum[ROWS][WIDE];
#pragma GCC unroll 12
        for (int r = 0; r < ROWS; r++)
            for (int j = 0; j < WIDE; j++)
                sum[r][j] = SET(0);
        for (int64_t i = first; i < end; i += ND_QUAD, cols += WIDE * SPAN) {
            LOAD_ALL(x, cols);
#pragma GCC unroll 12
            for (int r = 0; r < ROWS; r++) {
                const vector four = four_of(ROW_AT(row, r, k, i));
#pragma GCC unroll 4
                for (int j = 0; j < WIDE; j++)
                    ADD_IN_PLACE("vpaddw", sum[r][j], MADD_BYTES(x[j], four));
            }
        }
#pragma GCC unroll 12
        for (int r = 0; r < ROWS; r++)
            for (int j = 0; j < WIDE; j++)
                add_16_bits(c + r * stride + j * LANES, start ? start + r : NULL, sum[r][j]);
    }
}

static void pack_rows_words(void *out, const void *a, int64_t row_stride, int64_t col_stride,
                            int64_t rows, int64_t k)
{
    const int64_t padded = nd_fast_ceil(k, PAIR) * PAIR;
    const int8_t *from = a;
    int16_t *to = out;
    (void)row_stride;
    for (int64_t r = 0; r < ROWS; r++, from += col_stride, to += padded) {
        const int64_t count = r < rows ? k : 0;
        for (int64_t i = 0; i < count; i++)
            to[i] = from[i];
        if (count < padded)
            memset(to + count, 0, (size_t)(padded - count) * sizeof *to);
    }
}

/* Interleaves two rows of 16 columns, in 16 bits. */
static inline void interleave_words(int16_t *to, const int8_t *first, const int8_t *second)
{
    const __m128i even = _mm_loadu_si128((const void *)first);
    const __m128i odd = _mm_loadu_si128((const void *)second);
    _mm256_storeu_si256((void *)to, _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(even, odd)));
    _mm256_storeu_si256((void *)(to + 16), _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(even, odd)));
}

static void pack_words(void *out, const void *from, int64_t row_stride, int64_t col_stride,
                       int64_t cols, int64_t k)
{
    const int8_t *b = from;
    int16_t *to = out;
    for (int64_t i = 0; i < k; i += PAIR, to += COLS * PAIR) {
        const int8_t *even = b + i * row_stride, *odd = even + row_stride;
        for (int64_t j = 0; i + PAIR <= k && col_stride == 1 && cols == COLS && j < COLS; j += 16)
            interleave_words(to + j * PAIR, even + j, odd + j);
        if (i + PAIR <= k && col_stride == 1 && cols == COLS)
            continue;
        for (int64_t j = 0; j < COLS; j++)
            for (int64_t p = 0; p < PAIR; p++)
                to[j * PAIR + p] =
                    j < cols && i + p < k ? even[p * row_stride + j * col_stride] : 0;
    }
}

static void multiply_words(void *sums, int64_t stride, const void *a, const void *b, int64_t k,
                           const int32_t *start)
{
    multiply(sums, stride, a, b, k * (int64_t)sizeof(int16_t), start);
}

/* Blocks of column panels as with VNNI, those of codes whole sums of 16 bits. */
#define ND_INTEGER_KINDS                                                                           \
    [ND_PANEL_WORDS] = {.rows = ROWS,                                                              \
                        .cols = COLS,                                                              \
                        .step = PAIR,                                                              \
                        .bytes = 2,                                                                \
                        .block = 8192 / COLS,                                                      \
                        .pack_rows = pack_rows_words,                                              \
                        .pack_cols = pack_words,                                                   \
                        .multiply = multiply_words},                                               \
    [ND_PANEL_CODES] = {.rows = ROWS,                                                              \
                        .cols = COLS,                                                              \
                        .step = ND_QUAD,                                                           \
                        .bytes = 1,                                                                \
                        .block = 16128 / COLS,                                                     \
                        .pack_rows = pack_rows_bytes,                                              \
                        .pack_cols = pack_codes,                                                   \
                        .multiply = multiply_codes,                                                \
                        .start_of_row = start_of_codes}
#endif
