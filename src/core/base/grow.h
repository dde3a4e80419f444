/* Arrays and buffers that grow, and the order of numbers. */
#pragma once

#include <stdlib.h>

/* `memory` with room for `needed` (1 or more) elements of `size` bytes: as it is, or reallocated
 * with half as much again, which sets *capacity, in elements. NULL when there is no memory; then
 * `memory` is unchanged. */
static inline void *nd_grown(void *memory, size_t *capacity, size_t needed, size_t size)
{
    if (needed <= *capacity)
        return memory;
    const size_t new_capacity = needed < 64 ? 64 : needed + needed / 2;
    void *larger = reallocarray(memory, new_capacity, size);
    if (larger)
        *capacity = new_capacity;
    return larger;
}

/* For qsort of doubles. */
static inline int nd_ascending(const void *left, const void *right)
{
    const double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}
