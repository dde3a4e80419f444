/* bfloat16 and binary16 as bit patterns, with round-to-nearest-even conversions from float. */
#pragma once

#include <stdint.h>
#include <string.h>

static inline uint32_t nd_float_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float nd_float_from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float nd_bf16_to_float(uint16_t h)
{
    return nd_float_from_bits((uint32_t)h << 16);
}

static inline uint16_t nd_bf16_from_float(float x)
{
    const uint32_t bits = nd_float_bits(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((bits >> 16) | 0x40u); /* a NaN stays a quiet NaN */
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* Stochastic rounding: `random` is uniform over 32 bits; E[result] = x. */
static inline uint16_t nd_bf16_from_float_stochastic(float x, uint32_t random)
{
    const uint32_t bits = nd_float_bits(x);
    if ((bits & 0x7f800000u) == 0x7f800000u)
        return nd_bf16_from_float(x);
    return (uint16_t)((bits + (random & 0xffffu)) >> 16);
}

/* IEEE binary16. Ternary scales are rounded to it, so that 16-bit formats lose nothing. */
float nd_f16_to_float(uint16_t h);
uint16_t nd_f16_from_float(float x);

/* x rounded to the nearest value of binary16, ties to even. */
static inline float nd_f16_round(float x)
{
    return nd_f16_to_float(nd_f16_from_float(x));
}
