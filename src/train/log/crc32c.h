/* CRC-32C (Castagnoli), as TensorBoard's record format uses it. */
#pragma once

#include <stddef.h>
#include <stdint.h>

uint32_t nd_crc32c(const void *bytes, size_t size);

/* Rotated and offset, so that checksums of data with checksums stay effective. */
uint32_t nd_crc32c_masked(const void *bytes, size_t size);
