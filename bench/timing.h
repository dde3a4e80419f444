/* Medians, for benchmarks on shared and noisy machines. */
#pragma once

#include "core/base/clock.h"
#include "core/base/grow.h"

/* Sorts `values`. */
static inline double median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, nd_ascending);
    return values[count / 2];
}
