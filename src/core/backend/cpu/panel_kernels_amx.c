/* Packing and microkernels of panel_product.h for AMX: products of 8-bit integers, summed exactly
 * in 32 bits, and of bf16 values, summed in f32.
 *
 * A panel of 32 rows or columns is two tile registers of 16 rows of 64 bytes: rows of a as they
 * are, and of b sixteen columns side by side, each with four bytes of the inner dimension. */
#include "core/backend/cpu/panel_product.h"

#if defined(__AMX_INT8__) && defined(__AMX_BF16__) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { WIDTH = 32, LINE = 64, LINES = LINE / 4, WORD = sizeof(int32_t), PANEL_STEP = WIDTH * LINE };

typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

static void configure_tiles(void)
{
    static const tile_config config = {
        .palette = 1,
        .row_bytes = {LINE, LINE, LINE, LINE, LINE, LINE, LINE, LINE},
        .rows = {LINES, LINES, LINES, LINES, LINES, LINES, LINES, LINES}};
    _Static_assert(sizeof config == 64, "as the processor reads it");
    /* Not _tile_loadconfig, of which GCC 12 believes that it reads eight bytes. */
    __asm__ volatile("ldtilecfg %0" : : "m"(config));
}

static void release_tiles(void)
{
    _tile_release();
}

/* The lowest n bits. */
static inline uint64_t first_bits(int64_t n)
{
    return n >= 64 ? ~UINT64_C(0) : n <= 0 ? 0 : (UINT64_C(1) << n) - 1;
}

/* x[i][j] becomes x[j][i]. */
static inline void transpose_words(__m512i x[LINES])
{
    __m512i y[LINES];
    for (int i = 0; i < LINES; i += 2) {
        y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
    for (int i = 0; i < LINES; i += 4)
        for (int j = 0; j < 2; j++) {
            x[i + 2 * j] = _mm512_unpacklo_epi64(y[i + j], y[i + j + 2]);
            x[i + 2 * j + 1] = _mm512_unpackhi_epi64(y[i + j], y[i + j + 2]);
        }
    for (int half = 0; half < LINES; half += 8)
        for (int i = 0; i < 4; i++) {
            y[half + i] = _mm512_shuffle_i32x4(x[half + i], x[half + i + 4], 0x88);
            y[half + i + 4] = _mm512_shuffle_i32x4(x[half + i], x[half + i + 4], 0xdd);
        }
    for (int i = 0; i < 8; i++) {
        x[i] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0x88);
        x[i + 8] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0xdd);
    }
}

/* Sixteen columns of `lines` rows, interleaved to words; rows and columns beyond are 0. */
static inline __m512i interleave_bytes(const char *x, int64_t stride, int64_t rows, __mmask16 cols)
{
    __m512i words = _mm512_setzero_si512();
    for (int r = 0; r < WORD; r++) {
        const __mmask16 mask = r < rows ? cols : 0;
        const __m128i row = _mm_maskz_loadu_epi8(mask, x + (r < rows ? r : 0) * stride);
        words = _mm512_or_si512(
            words, _mm512_sll_epi32(_mm512_cvtepu8_epi32(row), _mm_cvtsi32_si128(8 * r)));
    }
    return words;
}

static inline __m512i interleave_halves(const char *x, int64_t stride, int64_t rows, __mmask16 cols)
{
    const __m256i low = _mm256_maskz_loadu_epi16(rows > 0 ? cols : 0, x);
    const __m256i high = _mm256_maskz_loadu_epi16(rows > 1 ? cols : 0, rows > 1 ? x + stride : x);
    return _mm512_or_si512(_mm512_cvtepu16_epi32(low),
                           _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
}

/* out [bytes / 64][32][64] from `count` rows that are `stride` bytes apart. */
static void copy_lines(char *out, const char *x, int64_t stride, int64_t count, int64_t bytes)
{
    for (int64_t at = 0; at < bytes; at += LINE)
        for (int64_t i = 0; i < WIDTH; i++, out += LINE)
            _mm512_store_si512(out, _mm512_maskz_loadu_epi8(i < count ? first_bits(bytes - at) : 0,
                                                            x + (i < count ? i : 0) * stride + at));
}

/* The same rows as columns of words: out [bytes / 64][2][16 words][16 rows]. */
static void transpose_lines(char *out, const char *x, int64_t stride, int64_t count, int64_t bytes)
{
    for (int64_t at = 0; at < bytes; at += LINE)
        for (int64_t from = 0; from < WIDTH; from += LINES) {
            __m512i lines[LINES];
            for (int64_t i = 0; i < LINES; i++) {
                const bool there = from + i < count;
                lines[i] = _mm512_maskz_loadu_epi8(there ? first_bits(bytes - at) : 0,
                                                   x + (there ? from + i : 0) * stride + at);
            }
            transpose_words(lines);
            for (int i = 0; i < LINES; i++, out += LINE)
                _mm512_store_si512(out, lines[i]);
        }
}

/* Sixteen columns at x of as many rows as fill 16 words a column; `size` bytes an element. */
static inline void interleave(__m512i words[LINES], const char *x, int64_t stride, int64_t rows,
                              int64_t cols, int64_t size)
{
    const int64_t step = WORD / size;
    for (int64_t i = 0; i < LINES; i++) {
        const int64_t rest = rows - i * step;
        const char *at = rest > 0 ? x + i * step * stride : x;
        const __mmask16 mask = (__mmask16)(cols >= LINES ? 0xffff : first_bits(cols));
        words[i] = size == 1 ? interleave_bytes(at, stride, rest, mask)
                             : interleave_halves(at, stride, rest, mask);
    }
}

/* out [k / step][2][16 words][16 cols] from b [k, cols], rows `stride` bytes apart; or
 * `transposed`, [k / step][2][16 cols][16 words]. */
static inline void pack_interleaved(char *out, const char *b, int64_t stride, int64_t cols,
                                    int64_t k, int64_t size, bool transposed)
{
    const int64_t step = LINE / size;
    for (int64_t at = 0; at < k; at += step)
        for (int64_t from = 0; from < WIDTH; from += LINES) {
            __m512i words[LINES];
            const char *first = from < cols ? b + at * stride + from * size : b;
            interleave(words, first, stride, k - at, cols - from, size);
            if (transposed)
                transpose_words(words);
            for (int i = 0; i < LINES; i++, out += LINE)
                _mm512_store_si512(out, words[i]);
        }
}

static void pack_rows_bytes(void *out, const void *a, int64_t row_stride, int64_t col_stride,
                            int64_t rows, int64_t k)
{
    (void)row_stride;
    copy_lines(out, a, col_stride, rows, k);
}

static void pack_cols_bytes(void *out, const void *b, int64_t row_stride, int64_t col_stride,
                            int64_t cols, int64_t k)
{
    if (row_stride == 1)
        transpose_lines(out, b, col_stride, cols, k);
    else
        pack_interleaved(out, b, row_stride, cols, k, 1, false);
}

static void pack_rows_bf16(void *out, const void *a, int64_t row_stride, int64_t col_stride,
                           int64_t rows, int64_t k)
{
    if (row_stride == 1)
        copy_lines(out, a, 2 * col_stride, rows, 2 * k);
    else
        pack_interleaved(out, a, 2 * row_stride, rows, k, 2, true);
}

static void pack_cols_bf16(void *out, const void *b, int64_t row_stride, int64_t col_stride,
                           int64_t cols, int64_t k)
{
    if (row_stride == 1)
        transpose_lines(out, b, 2 * col_stride, cols, 2 * k);
    else
        pack_interleaved(out, b, 2 * row_stride, cols, k, 2, false);
}

/* c [32, 32] += a b, or = with `start`, which is 0, by the instruction `dp`. */
#define ND_MULTIPLY(name, dp, values_in_a_line)                                                    \
    static void name(void *sums, int64_t stride, const void *a, const void *b, int64_t k,          \
                     const int32_t *start)                                                         \
    {                                                                                              \
        char *c = sums;                                                                            \
        const char *rows = a, *cols = b;                                                           \
        const int64_t row_bytes = stride * WORD, half = LINES * row_bytes;                         \
        __asm__ volatile("" : : : "memory"); /* GCC does not know that tiles are loaded from it */ \
        if (!start) {                                                                              \
            _tile_loadd(0, c, row_bytes);                                                          \
            _tile_loadd(1, c + LINE, row_bytes);                                                   \
            _tile_loadd(2, c + half, row_bytes);                                                   \
            _tile_loadd(3, c + half + LINE, row_bytes);                                            \
        } else {                                                                                   \
            _tile_zero(0);                                                                         \
            _tile_zero(1);                                                                         \
            _tile_zero(2);                                                                         \
            _tile_zero(3);                                                                         \
        }                                                                                          \
        for (int64_t i = 0; i < k;                                                                 \
             i += values_in_a_line, rows += PANEL_STEP, cols += PANEL_STEP) {                      \
            _tile_loadd(4, rows, LINE);                                                            \
            _tile_loadd(6, cols, LINE);                                                            \
            dp(0, 4, 6);                                                                           \
            _tile_loadd(7, cols + PANEL_STEP / 2, LINE);                                           \
            dp(1, 4, 7);                                                                           \
            _tile_loadd(5, rows + PANEL_STEP / 2, LINE);                                           \
            dp(2, 5, 6);                                                                           \
            dp(3, 5, 7);                                                                           \
        }                                                                                          \
        _tile_stored(0, c, row_bytes);                                                             \
        _tile_stored(1, c + LINE, row_bytes);                                                      \
        _tile_stored(2, c + half, row_bytes);                                                      \
        _tile_stored(3, c + half + LINE, row_bytes);                                               \
    }
ND_MULTIPLY(multiply_bytes, _tile_dpbssd, 64)
ND_MULTIPLY(multiply_bf16, _tile_dpbf16ps, 32)
#undef ND_MULTIPLY

#define ND_BYTES                                                                                   \
    {                                                                                              \
        .rows = WIDTH, .cols = WIDTH, .step = 64, .bytes = 1, .block = 512,                        \
        .pack_rows = pack_rows_bytes, .pack_cols = pack_cols_bytes, .multiply = multiply_bytes,    \
        .begin = configure_tiles, .end = release_tiles                                             \
    }
static const nd_panel_kind kinds[ND_PANEL_KINDS] = {
    [ND_PANEL_WORDS] = ND_BYTES,
    [ND_PANEL_CODES] = ND_BYTES,
    [ND_PANEL_BF16] = {.rows = WIDTH,
                       .cols = WIDTH,
                       .step = 32,
                       .bytes = 2,
                       .block = 256,
                       .pack_rows = pack_rows_bf16,
                       .pack_cols = pack_cols_bf16,
                       .multiply = multiply_bf16,
                       .begin = configure_tiles,
                       .end = release_tiles},
};

const nd_panel_kind *nd_panel_kinds_amx(void)
{
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM */
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0 ? kinds : 0;
}
#else
const nd_panel_kind *nd_panel_kinds_amx(void)
{
    return 0;
}
#endif
