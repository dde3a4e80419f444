/* Five ternary codes to a byte: with m = ceil(count / 5), byte j is the sum over k < 5 of
 * 3^k (code + 1) of code j + k m; codes beyond the last add nothing. Neighboring codes are in
 * neighboring bytes, so that a vector of bytes holds vectors of codes. */
#pragma once

#include <stdint.h>

static inline int64_t nd_trits_bytes(int64_t count)
{
    return (count + 4) / 5;
}

/* Writes bytes [first, end) of the packed form of all `count` codes, or reads them back. */
static inline void nd_trits_pack(uint8_t *packed, const int8_t *codes, int64_t count, int64_t first,
                                 int64_t end)
{
    for (int64_t j = first; j < end; j++) {
        int value = 0, power = 1;
        for (int64_t i = j; i < count; i += nd_trits_bytes(count), power *= 3)
            value += power * (codes[i] + 1);
        packed[j] = (uint8_t)value;
    }
}

static inline void nd_trits_unpack(int8_t *codes, const uint8_t *packed, int64_t count,
                                   int64_t first, int64_t end)
{
    for (int64_t j = first; j < end; j++) {
        int value = packed[j];
        for (int64_t i = j; i < count; i += nd_trits_bytes(count), value /= 3)
            codes[i] = (int8_t)(value % 3 - 1);
    }
}
