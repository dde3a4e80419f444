/* Decoders of ggml's ternary blocks (exchange/ternary_blocks.h), which the program only writes. */
#pragma once

#include "exchange/ggml_types.h"

#include <stdbool.h>
#include <stdint.h>

enum { TQ2_BYTES = 64, TQ1_BYTES = 52, Q2_BYTES = 16 };

static inline uint16_t load_scale(const uint8_t *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

/* The weights a byte of TQ1_0 holds: the first, the distance between them, and how many. */
typedef struct trit_run {
    int first, stride, count;
} trit_run;

static inline trit_run tq1_run(int byte)
{
    if (byte < 32)
        return (trit_run){byte, 32, 5};
    if (byte < 48)
        return (trit_run){160 + byte - 32, 16, 5};
    return (trit_run){240 + byte - 48, 4, 4};
}

static inline bool tq1_decode(const uint8_t *block, int8_t *codes, uint16_t *scale)
{
    for (int byte = 0; byte < TQ1_BYTES; byte++) {
        const trit_run run = tq1_run(byte);
        uint8_t rest =
            block[byte]; /* a fraction of 256; times 3, its whole part is the next digit */
        for (int n = 0; n < run.count; n++) {
            const unsigned tripled = rest * 3u;
            codes[run.first + n * run.stride] = (int8_t)((int)(tripled >> 8) - 1);
            rest = (uint8_t)tripled;
        }
    }
    *scale = load_scale(block + TQ1_BYTES);
    return true;
}

static inline bool tq2_decode(const uint8_t *block, int8_t *codes, uint16_t *scale)
{
    bool ternary = true;
    for (int byte = 0; byte < TQ2_BYTES; byte++) {
        int8_t *first = codes + byte / 32 * 128 + byte % 32;
        for (int n = 0; n < 4; n++) {
            const int digit = block[byte] >> (2 * n) & 3;
            first[32 * n] = (int8_t)(digit - 1);
            ternary = ternary && digit != 3;
        }
    }
    *scale = load_scale(block + TQ2_BYTES);
    return ternary;
}

static inline bool q2_decode(const uint8_t *block, int8_t *codes, uint16_t *scale)
{
    bool ternary = true;
    *scale = load_scale(block);
    for (int i = 0; i < 4 * Q2_BYTES; i++) {
        const int digit = block[2 + i / 4] >> (2 * (i % 4)) & 3;
        codes[i] = (int8_t)(digit - 1);
        ternary = ternary && digit != 3;
    }
    return ternary;
}

/* The inverse of nd_ternary_block_encode. False when a digit is none of the three. */
static inline bool decode_ternary_block(uint32_t type, const uint8_t *block, int8_t *codes,
                                        uint16_t *scale)
{
    if (type == ND_GGML_TQ1_0)
        return tq1_decode(block, codes, scale);
    if (type == ND_GGML_TQ2_0)
        return tq2_decode(block, codes, scale);
    return q2_decode(block, codes, scale);
}
