#include "core/base/rng.h"

#include "core/base/philox.h"

#include <math.h>

nd_rng_block nd_rng_philox(uint64_t key, uint64_t counter_high, uint64_t counter_low)
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c0 = (uint32_t)counter_low, c1 = (uint32_t)(counter_low >> 32);
    uint32_t c2 = (uint32_t)counter_high, c3 = (uint32_t)(counter_high >> 32);
    ND_PHILOX(k0, k1, c0, c1, c2, c3)
    return (nd_rng_block){{c0, c1, c2, c3}};
}

uint64_t nd_rng_key(uint64_t seed, const char *purpose)
{
    uint64_t hash = 0xcbf29ce484222325u ^ seed; /* FNV-1a, then splitmix64 */
    for (const char *c = purpose; *c; c++)
        hash = (hash ^ (uint8_t)*c) * 0x100000001b3u;
    return nd_rng_mix(hash + 0x9e3779b97f4a7c15u * (seed + 1));
}

double nd_rng_uniform(uint64_t key, uint64_t index)
{
    const nd_rng_block block = nd_rng_philox(key, 0, index);
    const uint64_t bits = ((uint64_t)block.word[0] << 32 | block.word[1]) >> 11;
    return (double)bits * 0x1p-53;
}

void nd_rng_normal_fill(uint64_t key, uint64_t first, float std, float *x, int64_t count)
{
    const double two_pi = 6.283185307179586476925;
#pragma omp parallel for if (count > 65536)
    for (int64_t i = 0; i < count; i++) {
        const nd_rng_block block = nd_rng_philox(key, 1, first + (uint64_t)i);
        const double u = ((double)block.word[0] + 1.0) * 0x1p-32; /* (0, 1]: Box-Muller's log */
        const double v = (double)block.word[1] * 0x1p-32;
        x[i] = (float)(std * sqrt(-2.0 * log(u)) * cos(two_pi * v));
    }
}
