/* The clock for measuring intervals. */
#pragma once

#include <time.h>

/* Seconds since an arbitrary moment; monotonic. */
static inline double nd_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
