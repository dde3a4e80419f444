#include "core/base/float_formats.h"

float nd_f16_to_float(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    const uint32_t exponent = (h >> 10) & 0x1fu;
    const uint32_t fraction = h & 0x3ffu;
    if (exponent == 0x1f)
        return nd_float_from_bits(sign | 0x7f800000u | (fraction << 13));
    if (exponent != 0)
        return nd_float_from_bits(sign | ((exponent + 112u) << 23) | (fraction << 13));
    const float magnitude = (float)fraction * 0x1p-24f;
    return sign ? -magnitude : magnitude;
}

uint16_t nd_f16_from_float(float x)
{
    const uint32_t bits = nd_float_bits(x);
    const uint16_t sign = (uint16_t)((bits >> 16) & 0x8000u);
    const uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) /* rounds to 65536 or more */
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) {
        /* Subnormal: adding 0.5 makes the float adder align and round at 2^-24. */
        const uint32_t aligned = nd_float_bits(nd_float_from_bits(magnitude) + 0.5f);
        return (uint16_t)(sign | (aligned - 0x3f000000u));
    }
    const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return (uint16_t)(sign | ((rounded - 0x38000000u) >> 13));
}
