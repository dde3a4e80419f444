/* f32 values in fewer bytes, to the bit: what is regular in gradients is their exponents.
 *
 * Blocks of 256 values. With e the exponent of a value in 8 bits, E the largest of its block and d = E - e, gradients
 * have small d: their entropy is 2.7 bits where e takes 8. A block is
 *
 *   E, w, escapes (u8, u8, u16), low mantissas (u16 each), signs and high mantissas (u8 each),
 *   min(d, 2^w - 1) in w planes of a bit a value, then e (u8) of each value whose d is 2^w - 1 or more
 *
 * with the w of 0 to 4 that takes least, or w = 8: all e, u8 each. A block takes 0.86 of 1024 bytes where d is
 * distributed as of gradients (measured: docs/wire.md). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Returns the bytes written, less than those of the values, or 0 where it would take as many. `out`: room for the
 * bytes of the values. Host memory of any alignment. */
size_t nd_short_floats_encode(void *out, const float *values, int64_t count);

/* into[0..count) = what was encoded, or += it. False: `bytes` bytes are no such values; `into` is damaged. */
bool nd_short_floats_decode(float *into, const void *in, size_t bytes, int64_t count, bool add);
