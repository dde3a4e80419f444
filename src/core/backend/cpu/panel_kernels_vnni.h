/* The panel kernels of 8-bit integers for VNNI, in vectors of one width. The including file defines
 *
 *   vector, LANES              the type of a vector, and how many 32-bit lanes it has
 *   ROWS                       of a panel, a multiple of 3; a panel of columns is two vectors wide
 *   LOAD(p), STORE(p, x)       a vector at any address
 *   SET(x)                     the same 32-bit integer in all lanes
 *   DOT(sum, u, s)             sum plus, in each lane, four products of unsigned by signed bytes */
#include "core/backend/cpu/panel_quads.h"

enum { COLS = 2 * LANES, SPAN = LANES * ND_QUAD /* bytes of a vector */ };

/* Rows as they are, one after another, each padded to quads. */
static void pack_rows(void *out, const void *a, int64_t row_stride, int64_t col_stride,
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

static void pack_codes(void *out, const void *b, int64_t row_stride, int64_t col_stride,
                       int64_t cols, int64_t k)
{
    nd_pack_quads(out, b, row_stride, col_stride, cols, k, COLS, ND_OFFSET_OF_CODES);
}

static void pack_integers(void *out, const void *b, int64_t row_stride, int64_t col_stride,
                          int64_t cols, int64_t k)
{
    nd_pack_quads(out, b, row_stride, col_stride, cols, k, COLS, ND_OFFSET_OF_INTEGERS);
}

static int32_t sum_of(const int8_t *a, int64_t k)
{
    int8_t rest[SPAN] = {0};
    int32_t lanes[LANES], sum = 0;
    vector sums = SET(0);
    const vector ones = SET(0x01010101);
    int64_t i = 0;
    for (; i + SPAN <= k; i += SPAN)
        sums = DOT(sums, ones, LOAD(a + i));
    memcpy(rest, a + i, (size_t)(k - i));
    sums = DOT(sums, ones, LOAD(rest));
    STORE(lanes, sums);
    for (i = 0; i < LANES; i++)
        sum += lanes[i];
    return sum;
}

static int32_t start_of_codes(const int8_t *a, int64_t k)
{
    return -ND_OFFSET_OF_CODES * sum_of(a, k);
}

static int32_t start_of_integers(const int8_t *a, int64_t k)
{
    return -ND_OFFSET_OF_INTEGERS * sum_of(a, k);
}

static inline vector four_of(const char *row)
{
    int32_t four;
    memcpy(&four, row, sizeof four);
    return SET(four);
}

static void multiply(void *sums, int64_t stride, const void *a, const void *b, int64_t k,
                     const int32_t *start)
{
    int32_t *c = sums;
    const char *cols = b, *row[ROWS / 3]; /* of three rows each, for short addresses */
    vector sum[ROWS][2];
#pragma GCC unroll 4
    for (int r = 0; r < ROWS / 3; r++)
        row[r] = (const char *)a + 3 * r * k;
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < 2; j++)
            sum[r][j] = start ? SET(start[r]) : LOAD(c + r * stride + j * LANES);
    for (int64_t i = 0; i < k; i += ND_QUAD, cols += 2 * SPAN) {
        const vector left = LOAD(cols), right = LOAD(cols + SPAN);
#pragma GCC unroll 12
        for (int r = 0; r < ROWS; r++) {
            const vector four = four_of(row[r / 3] + r % 3 * k + i);
            sum[r][0] = DOT(sum[r][0], left, four);
            sum[r][1] = DOT(sum[r][1], right, four);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < 2; j++)
            STORE(c + r * stride + j * LANES, sum[r][j]);
}

/* A block of a column panel takes half of a first-level cache of 32 KiB. */
#define ND_BYTES(packing, start)                                                                   \
    {                                                                                              \
        .rows = ROWS, .cols = COLS, .step = ND_QUAD, .bytes = 1, .block = 16384 / COLS,            \
        .pack_rows = pack_rows, .pack_cols = packing, .multiply = multiply, .start_of_row = start  \
    }
static const nd_panel_kind kinds[ND_PANEL_KINDS] = {
    [ND_PANEL_WORDS] = ND_BYTES(pack_integers, start_of_integers),
    [ND_PANEL_CODES] = ND_BYTES(pack_codes, start_of_codes),
};
