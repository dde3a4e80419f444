/* The clock that intervals are measured by. */
#pragma once

#include <time.h>

/* Seconds since some moment before the program began; never set back. */
static inline double nd_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
