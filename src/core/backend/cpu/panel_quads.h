/* Packing for products of 8-bit integers, four at a time. Those of unsigned by signed bytes have b
 * made unsigned by adding `offset`, 1 to codes and 128 to other integers, which takes
 * offset * (sum of row i of a) too much, where row i of c therefore starts below 0. */
#pragma once

#include "core/backend/cpu/panel_product.h"

#include <string.h>

#ifdef __ARM_NEON
#include <arm_neon.h>
#else
#include <immintrin.h>
#endif

enum { ND_QUAD = 4, ND_OFFSET_OF_CODES = 1, ND_OFFSET_OF_INTEGERS = 128 };

#ifdef __ARM_NEON
/* Interleaves four rows of 16 columns. */
static inline void nd_interleave_quad(uint8_t *to, const int8_t *b, int64_t row_stride, int offset)
{
    const uint8x16_t more = vdupq_n_u8((uint8_t)offset);
    uint8x16x4_t rows;
    for (int i = 0; i < ND_QUAD; i++)
        rows.val[i] = vaddq_u8(vreinterpretq_u8_s8(vld1q_s8(b + i * row_stride)), more);
    vst4q_u8(to, rows);
}
#else
/* Interleaves four rows of 16 columns. */
static inline void nd_interleave_quad(uint8_t *to, const int8_t *b, int64_t row_stride, int offset)
{
    const __m128i more = _mm_set1_epi8((char)offset);
    __m128i row[ND_QUAD];
    for (int i = 0; i < ND_QUAD; i++)
        row[i] = _mm_add_epi8(_mm_loadu_si128((const void *)(b + i * row_stride)), more);
    const __m128i low01 = _mm_unpacklo_epi8(row[0], row[1]),
                  low23 = _mm_unpacklo_epi8(row[2], row[3]);
    const __m128i high01 = _mm_unpackhi_epi8(row[0], row[1]),
                  high23 = _mm_unpackhi_epi8(row[2], row[3]);
    _mm_storeu_si128((void *)to, _mm_unpacklo_epi16(low01, low23));
    _mm_storeu_si128((void *)(to + 16), _mm_unpackhi_epi16(low01, low23));
    _mm_storeu_si128((void *)(to + 32), _mm_unpacklo_epi16(high01, high23));
    _mm_storeu_si128((void *)(to + 48), _mm_unpackhi_epi16(high01, high23));
}
#endif

/* Columns [0, cols) of a quad at b, whose last values may be missing. */
static inline void nd_gather_quad(uint8_t *to, const int8_t *b, int64_t row_stride,
                                  int64_t col_stride, int64_t cols, int64_t count, int offset)
{
    const uint32_t low = 0x7f7f7f7fu, more = 0x01010101u * (uint32_t)offset;
    for (int64_t j = 0; j < cols; j++, to += ND_QUAD, b += col_stride) {
        uint32_t four;
        if (count == ND_QUAD && row_stride == 1) {
            memcpy(&four, b, ND_QUAD);
            /* Adds to each byte without carries between them. */
            four = ((four & low) + (more & low)) ^ ((four ^ more) & ~low);
            memcpy(to, &four, ND_QUAD);
            continue;
        }
        for (int64_t q = 0; q < ND_QUAD; q++)
            to[q] = q < count ? (uint8_t)(b[q * row_stride] + offset) : 0;
    }
}

/* out [k / 4][width][4], as nd_panel_kind's pack_cols; `width` is a multiple of 16. */
static inline void nd_pack_quads(uint8_t *out, const int8_t *b, int64_t row_stride,
                                 int64_t col_stride, int64_t cols, int64_t k, int64_t width,
                                 int offset)
{
    for (int64_t i = 0; i < k; i += ND_QUAD, out += width * ND_QUAD) {
        const int8_t *from = b + i * row_stride;
        if (i + ND_QUAD <= k && col_stride == 1 && cols == width) {
            for (int64_t j = 0; j < width; j += 16)
                nd_interleave_quad(out + j * ND_QUAD, from + j, row_stride, offset);
            continue;
        }
        nd_gather_quad(out, from, row_stride, col_stride, cols, nd_fast_min(ND_QUAD, k - i),
                       offset);
        memset(out + cols * ND_QUAD, 0, (size_t)((width - cols) * ND_QUAD));
    }
}
