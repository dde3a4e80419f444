/* Ternary codes encoded as changes. One to three codes in a hundred change in a step
 * (docs/wire.md), so that a byte per change is shorter than any encoding of all codes.
 *
 * In each byte the low 7 bits count unchanged codes. 127 means that no change follows them;
 * otherwise the next code changes to its successor (high bit 0) or the one after that (high bit 1)
 * in the cycle -1, 0, 1, -1. */
#pragma once

#include "core/base/error.h"

#include <stddef.h>
#include <stdint.h>

/* Encodes the changes from before[count] to now[count] into `out` and returns the bytes written.
 * Returns capacity + 1 when they need more than `capacity` bytes; the contents of `out` are then
 * undefined. Host memory. */
size_t nd_changed_codes_encode(const int8_t *before, const int8_t *now, int64_t count, uint8_t *out,
                               size_t capacity);

/* Applies changes in[bytes] to codes[count]. Host memory. Errors: ND_EPEER beyond the last code. */
nd_status nd_changed_codes_apply(int8_t *codes, int64_t count, const uint8_t *in, size_t bytes);
