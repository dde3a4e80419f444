/* Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
 * 1, 2, 3", SC11). A value is a pure function of (key, counter), so that any rank or thread can
 * compute any part of a stream, and a saved run needs no generator state. */
#pragma once

#include <stdint.h>

typedef struct nd_rng_block {
    uint32_t word[4];
} nd_rng_block;

/* 128 random bits for this key and counter. */
nd_rng_block nd_rng_philox(uint64_t key, uint64_t counter_high, uint64_t counter_low);

/* A 64-bit key from a seed and a purpose such as a tensor's name: independent streams. */
uint64_t nd_rng_key(uint64_t seed, const char *purpose);

/* The finaliser of splitmix64: a bijection that mixes all bits. */
static inline uint64_t nd_rng_mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* Uniform in [0, 1), 53 bits, from element `index` of the stream. */
double nd_rng_uniform(uint64_t key, uint64_t index);

/* Fills x[0..count) with normal(0, std): element i comes from counter first + i alone. */
void nd_rng_normal_fill(uint64_t key, uint64_t first, float std, float *x, int64_t count);
