/* The 4-bit code of tiles: a sign (bit 3) and one of eight magnitudes in (0, 1).
 *
 * The magnitudes are those of least squared error (Lloyd 1982, Max 1960) for elements of a normal
 * 128 x 128 tile divided by the smaller of their row's and column's maximum. There is no code for
 * zero; where a scale is zero, every code means zero. */
#pragma once

enum { ND_NIBBLE_LEVELS = 8, ND_NIBBLE_SIGN = 8 };

static const float nd_nibble_levels[ND_NIBBLE_LEVELS] = {0.0476f, 0.1435f, 0.2420f, 0.3448f,
                                                         0.4569f, 0.5847f, 0.7381f, 0.9406f};

/* The index of a magnitude is the number of limits below it. */
static const float nd_nibble_limits[ND_NIBBLE_LEVELS - 1] = {0.09555f, 0.19275f, 0.2934f, 0.40085f,
                                                             0.5208f,  0.6614f,  0.83935f};
