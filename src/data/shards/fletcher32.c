#include "data/shards/fletcher32.h"

enum { WORDS_BEFORE_CARRY = 360 }; /* as many as cannot overflow 32 bits */

uint32_t nd_fletcher32(const void *data, size_t bytes)
{
    const uint8_t *byte = data;
    uint32_t sum1 = 0, sum2 = 0;
    for (size_t words = bytes / 2; words > 0;) {
        const size_t block = words > WORDS_BEFORE_CARRY ? WORDS_BEFORE_CARRY : words;
        for (size_t i = 0; i < block; i++) {
            sum1 += (uint32_t)byte[2 * i] << 8 | byte[2 * i + 1];
            sum2 += sum1;
        }
        sum1 = (sum1 & 0xffff) + (sum1 >> 16);
        sum2 = (sum2 & 0xffff) + (sum2 >> 16);
        byte += 2 * block;
        words -= block;
    }
    sum1 = (sum1 & 0xffff) + (sum1 >> 16);
    sum2 = (sum2 & 0xffff) + (sum2 >> 16);
    return sum2 << 16 | sum1;
}
