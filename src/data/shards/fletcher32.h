/* The checksum of HDF5's fletcher32 filter, 4 little-endian bytes after each chunk: two sums of
 * big-endian 16-bit words modulo 65535, the second in the upper half. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { ND_FLETCHER32_BYTES = 4 };

/* `bytes` must be even. */
uint32_t nd_fletcher32(const void *data, size_t bytes);
