/* Random inputs of benchmarks: a few numbers are drawn, as Philox on one thread would take longer
 * than what is measured, and repeated with a period that divides no row. */
#pragma once

#include <stddef.h>
#include <string.h>

enum { DRAWN = 65521 };

/* Of `bytes` of elements of `size`, the first DRAWN stand there: the rest become copies of them. */
static inline void repeat_drawn(void *values, size_t size, size_t bytes)
{
    const size_t period = DRAWN * size;
    for (size_t at = period; at < bytes; at += period)
        memcpy((char *)values + at, values, bytes - at < period ? bytes - at : period);
}
