#include "exchange/ternary_blocks.h"

#include "exchange/ggml_types.h"

enum { TQ2_BYTES = 64, TQ1_BYTES = 52, Q2_BYTES = 16 };

static void store_scale(uint8_t *at, uint16_t scale)
{
    at[0] = (uint8_t)(scale & 0xff);
    at[1] = (uint8_t)(scale >> 8);
}

/* The weights in a byte of TQ1_0: the first, their distance and their number. */
typedef struct trit_run {
    int first, stride, count;
} trit_run;

static trit_run tq1_run(int byte)
{
    if (byte < 32)
        return (trit_run){byte, 32, 5};
    if (byte < 48)
        return (trit_run){160 + byte - 32, 16, 5};
    return (trit_run){240 + byte - 48, 4, 4};
}

static void tq1_encode(const int8_t *codes, uint16_t scale, uint8_t *block)
{
    for (int byte = 0; byte < TQ1_BYTES; byte++) {
        const trit_run run = tq1_run(byte);
        unsigned value = 0;
        for (int n = 0; n < 5; n++)
            value =
                3 * value + (n < run.count ? (unsigned)(codes[run.first + n * run.stride] + 1) : 0);
        block[byte] = (uint8_t)((value * 256 + 242) / 243);
    }
    store_scale(block + TQ1_BYTES, scale);
}

static void tq2_encode(const int8_t *codes, uint16_t scale, uint8_t *block)
{
    for (int byte = 0; byte < TQ2_BYTES; byte++) {
        const int8_t *first = codes + byte / 32 * 128 + byte % 32;
        unsigned value = 0;
        for (int n = 0; n < 4; n++)
            value |= (unsigned)(first[32 * n] + 1) << (2 * n);
        block[byte] = (uint8_t)value;
    }
    store_scale(block + TQ2_BYTES, scale);
}

static void q2_encode(const int8_t *codes, uint16_t scale, uint8_t *block)
{
    store_scale(block, scale);
    for (int byte = 0; byte < Q2_BYTES; byte++) {
        unsigned value = 0;
        for (int n = 0; n < 4; n++)
            value |= (unsigned)(codes[4 * byte + n] + 1) << (2 * n);
        block[2 + byte] = (uint8_t)value;
    }
}

void nd_ternary_block_encode(uint32_t type, const int8_t *codes, uint16_t scale, uint8_t *block)
{
    if (type == ND_GGML_TQ1_0)
        tq1_encode(codes, scale, block);
    else if (type == ND_GGML_TQ2_0)
        tq2_encode(codes, scale, block);
    else
        q2_encode(codes, scale, block);
}
