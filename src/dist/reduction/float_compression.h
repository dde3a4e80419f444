/* Lossless compression of f32 gradients, whose exponents are the compressible part.
 *
 * Blocks of 256 values. With e the 8-bit exponent of a value, E the largest in its block and d = E
 * - e, gradients have small d: its entropy is 2.7 bits where e takes 8. A block is
 *
 *   E, w, escapes (u8, u8, u16), low mantissas (u16 each), signs and high mantissas (u8 each),
 *   min(d, 2^w - 1) in w bit planes, then e (u8) of each value whose d is 2^w - 1 or more
 *
 * with the w of 0 to 4 that takes least, or w = 8: every e as u8. A block takes 0.86 of its 1024
 * bytes for the d of gradients (measured: docs/wire.md). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Returns the bytes written to `out`, which has room for the bytes of the values, or 0 where
 * compression would not save any. Host memory of any alignment. */
size_t nd_floats_compress(void *out, const float *values, int64_t count);

/* Decodes into[0..count), or with `add` adds to it. Returns false when `in` is not an encoding of
 * `count` values; `into` is undefined then. */
bool nd_floats_decompress(float *into, const void *in, size_t bytes, int64_t count, bool add);
