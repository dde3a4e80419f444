#include "data/sample_order.h"

#include "core/base/rng.h"

enum { ROUNDS = 4 };

int64_t nd_sample_order(uint64_t seed, uint64_t epoch, int64_t n, int64_t index)
{
    if (n < 2)
        return 0;
    int half_bits = 1;
    while ((uint64_t)1 << 2 * half_bits < (uint64_t)n)
        half_bits++;
    const uint64_t half_mask = ((uint64_t)1 << half_bits) - 1;
    const uint64_t key = nd_rng_key(seed, "sample_order");
    uint64_t keys[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        const nd_rng_block block = nd_rng_philox(key, epoch, (uint64_t)round);
        keys[round] = (uint64_t)block.word[0] << 32 | block.word[1];
    }
    uint64_t value = (uint64_t)index;
    do {
        uint64_t left = value >> half_bits, right = value & half_mask;
        for (int round = 0; round < ROUNDS; round++) {
            const uint64_t next = left ^ (nd_rng_mix(keys[round] + right) & half_mask);
            left = right;
            right = next;
        }
        value = left << half_bits | right;
    } while (value >= (uint64_t)n);
    return (int64_t)value;
}
