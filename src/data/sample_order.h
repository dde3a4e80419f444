/* The order of samples: a keyed permutation of 0..n-1, computed and never stored.
 *
 * A balanced Feistel network over the smallest even-bit domain that holds n, walked until the value
 * falls below n (cycle walking; Black & Rogaway, "Ciphers with arbitrary finite domains", 2002). A
 * sample takes less than four passes through the network on average. */
#pragma once

#include <stdint.h>

/* The window at place `index` of epoch `epoch`, for 0 <= index < n. */
int64_t nd_sample_order(uint64_t seed, uint64_t epoch, int64_t n, int64_t index);
