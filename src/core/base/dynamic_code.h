/* The 8-bit dynamic code of AdamW moments (dynamic tree quantization, arXiv:2110.02861, section
 * 2.2): magnitudes in (0, 1] over seven decades, the top one with the most values, so that small
 * and large elements of a block have similar relative errors.
 *
 * Decade d = 0..6 spans [10^(d-7), 10^(d-6)] and holds the midpoints of c 2^d equal cells. The
 * signed code has c = 1, a sign bit (bit 7) and 128 magnitudes, of which the largest is 1 in place
 * of its midpoint, so that the element of largest magnitude is exact. The unsigned code has c = 2
 * and 256 magnitudes, the last of which is 1. Index 0 is zero in both.
 *
 * A magnitude is rounded to the nearest index. In the unsigned code a positive value never becomes
 * zero: a second moment of zero would divide the first by epsilon alone. */
#pragma once

#include <stdbool.h>

enum { ND_DYNAMIC_DECADES = 7, ND_DYNAMIC_SIGN = 0x80 };

typedef struct nd_dynamic_code {
    bool has_sign;
    int count;         /* magnitudes: 128 or 256 */
    float values[256]; /* ascending; values[0] = 0 */
    float limits[256]; /* a magnitude a has the index k with limits[k-1] < a <= limits[k] */
} nd_dynamic_code;

/* Computes the table of the signed or the unsigned code. */
void nd_dynamic_code_fill(nd_dynamic_code *code, bool has_sign);
