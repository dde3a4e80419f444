/* CRC-32C (Castagnoli), as TensorBoard's record format uses it. */
#pragma once

#include <stddef.h>
#include <stdint.h>

uint32_t nd_crc32c(const void *bytes, size_t size);

/* The masked CRC-32C: rotated and offset, so that checksums of data that contains checksums stay
 * effective. */
uint32_t nd_crc32c_masked(const void *bytes, size_t size);
