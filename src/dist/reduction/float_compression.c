#include "dist/reduction/float_compression.h"

#include <string.h>

enum { BLOCK = 256, HEADER = 4, WIDTH_MAX = 4, WIDTH_RAW = 8 };

static const uint64_t ones = 0x0101010101010101u;

/* The values of a block, split into their fields. */
typedef struct parts {
    uint16_t low[BLOCK];
    uint8_t high[BLOCK], exponent[BLOCK], below[BLOCK]; /* below: d */
} parts;

static void split(parts *p, const float *values, int n)
{
    uint32_t bits[BLOCK] = {0};
    memcpy(bits, values, (size_t)n * sizeof *bits);
    for (int i = 0; i < BLOCK; i++) {
        p->low[i] = (uint16_t)bits[i];
        p->high[i] = (uint8_t)((bits[i] >> 24 & 0x80) | (bits[i] >> 16 & 0x7f));
        p->exponent[i] = (uint8_t)(bits[i] >> 23);
    }
}

/* How many values have d of at least `limit`. */
static int count_escapes(const parts *p, int n, int limit)
{
    int count = 0;
    for (int i = 0; i < n; i++)
        count += p->below[i] >= limit;
    return count;
}

static int choose_width(parts *p, int n, uint8_t *top, int *escapes)
{
    int best = WIDTH_RAW, least = n;
    uint8_t largest = 0;
    for (int i = 0; i < n; i++)
        largest = p->exponent[i] > largest ? p->exponent[i] : largest;
    for (int i = 0; i < n; i++)
        p->below[i] = (uint8_t)(largest - p->exponent[i]);
    *top = largest;
    *escapes = 0;
    if (count_escapes(p, n, 1) == 0)
        return 0;
    for (int w = 1; w <= WIDTH_MAX; w++) {
        const int out = count_escapes(p, n, (1 << w) - 1), bytes = w * ((n + 7) / 8) + out;
        if (bytes >= least)
            continue;
        least = bytes;
        best = w;
        *escapes = out;
    }
    return best;
}

/* Gathers bit k of eight bytes in one byte. */
static uint8_t gather_bit(uint64_t bytes, int k)
{
    return (uint8_t)(((bytes >> k & ones) * 0x0102040810204080u) >> 56);
}

static uint8_t *write_planes(uint8_t *at, parts *p, int n, int width)
{
    const int plane = (n + 7) / 8;
    const uint8_t limit = (uint8_t)((1 << width) - 1);
    uint8_t capped[BLOCK] = {0};
    for (int i = 0; i < n; i++)
        capped[i] = p->below[i] < limit ? p->below[i] : limit;
    for (int b = 0; b < plane; b++) {
        uint64_t eight;
        memcpy(&eight, capped + 8 * b, sizeof eight);
        for (int k = 0; k < width; k++)
            at[k * plane + b] = gather_bit(eight, k);
    }
    at += width * plane;
    for (int i = 0; i < n; i++) { /* written always, kept only if it is an escape */
        *at = p->exponent[i];
        at += p->below[i] >= limit;
    }
    return at;
}

static int block_bytes(int n, int width, int escapes)
{
    return HEADER + 3 * n + (width == WIDTH_RAW ? n : width * ((n + 7) / 8)) + escapes;
}

size_t nd_floats_compress(void *out, const float *values, int64_t count)
{
    const size_t room = (size_t)count * sizeof *values;
    uint8_t *at = out;
    size_t used = 0;
    for (int64_t first = 0; first < count; first += BLOCK) {
        const int n = (int)(count - first < BLOCK ? count - first : BLOCK);
        parts p;
        uint8_t top;
        int escapes;
        split(&p, values + first, n);
        const int width = choose_width(&p, n, &top, &escapes);
        used += (size_t)block_bytes(n, width, escapes);
        if (used + 1 >= room) /* one byte is written beyond the last escape */
            return 0;
        const uint16_t escaped = (uint16_t)escapes;
        at[0] = top;
        at[1] = (uint8_t)width;
        memcpy(at + 2, &escaped, sizeof escaped);
        memcpy(at + HEADER, p.low, (size_t)(2 * n));
        memcpy(at + HEADER + 2 * n, p.high, (size_t)n);
        at += HEADER + 3 * n;
        if (width == WIDTH_RAW)
            memcpy(at, p.exponent, (size_t)n);
        at = width == WIDTH_RAW ? at + n : width > 0 ? write_planes(at, &p, n, width) : at;
    }
    return used;
}

/* Spreads the bits of a byte to eight bytes of 0 or 1. */
static uint64_t spread_bits(uint8_t bits)
{
    const uint64_t each = bits * ones & 0x8040201008040201u;
    return (each + 0x7f * ones) >> 7 & ones;
}

/* Returns false when the number of escapes is not the announced one. */
static bool read_exponents(parts *p, const uint8_t *at, int n, int width, uint8_t top, int escapes)
{
    const int plane = (n + 7) / 8, limit = (1 << width) - 1;
    const uint8_t *escape = at + width * plane;
    int taken = 0;
    for (int b = 0; b < plane; b++) {
        uint64_t eight = 0;
        for (int k = 0; k < width; k++)
            eight |= spread_bits(at[k * plane + b]) << k;
        memcpy(p->below + 8 * b, &eight, sizeof eight);
    }
    for (int i = 0; i < n; i++)
        p->exponent[i] = (uint8_t)(top - p->below[i]);
    for (int i = 0; escapes > 0 && i < n; i++)
        if (p->below[i] == limit && taken++ < escapes)
            p->exponent[i] = *escape++;
    return taken == escapes || width == 0;
}

static void join(float *values, const parts *p)
{
    for (int i = 0; i < BLOCK; i++) {
        const uint32_t bits = (uint32_t)(p->high[i] & 0x80) << 24 | (uint32_t)p->exponent[i] << 23 |
                              (uint32_t)(p->high[i] & 0x7f) << 16 | p->low[i];
        memcpy(&values[i], &bits, sizeof bits);
    }
}

bool nd_floats_decompress(float *into, const void *in, size_t bytes, int64_t count, bool add)
{
    const uint8_t *at = in, *end = at + bytes;
    for (int64_t first = 0; first < count; first += BLOCK) {
        const int n = (int)(count - first < BLOCK ? count - first : BLOCK);
        parts p = {{0}, {0}, {0}, {0}};
        float values[BLOCK];
        uint16_t escapes;
        if (end - at < HEADER)
            return false;
        const uint8_t top = at[0];
        const int width = at[1];
        memcpy(&escapes, at + 2, sizeof escapes);
        if ((width > WIDTH_MAX && width != WIDTH_RAW) || end - at < block_bytes(n, width, escapes))
            return false;
        const uint8_t *exponents = at + HEADER + 3 * n;
        memcpy(p.low, at + HEADER, (size_t)(2 * n));
        memcpy(p.high, at + HEADER + 2 * n, (size_t)n);
        if (width == WIDTH_RAW)
            memcpy(p.exponent, exponents, (size_t)n);
        else if (!read_exponents(&p, exponents, n, width, top, escapes))
            return false;
        at += block_bytes(n, width, escapes);
        join(values, &p);
        for (int i = 0; add && i < n; i++)
            into[first + i] += values[i];
        if (!add)
            memcpy(into + first, values, (size_t)n * sizeof *into);
    }
    return at == end;
}
