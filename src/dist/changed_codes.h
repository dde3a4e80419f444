/* Ternary codes as what changed of them. A step changes one to three in a hundred (docs/distributed.md),
 * so that a byte for each change is less than any form of all of them.
 *
 * Byte by byte: the low 7 bits are how many codes in a row stay as they are, 127 standing for that many
 * with nothing after them; else the code behind them becomes, of the two others, the next (high bit 0) or
 * the one after it (1), in the order -1, 0, 1, -1. */
#ifndef ND_DIST_CHANGED_CODES_H
#define ND_DIST_CHANGED_CODES_H

#include "core/base/error.h"

#include <stddef.h>
#include <stdint.h>

/* Writes to `out` and returns the bytes; more than `capacity` would be: capacity + 1, and `out` is of no use. */
size_t nd_changed_codes_make(const int8_t *before, const int8_t *now, int64_t count, uint8_t *out,
                             size_t capacity);

/* Errors: ND_EPEER when a change lies beyond the last code. */
nd_status nd_changed_codes_apply(int8_t *codes, int64_t count, const uint8_t *in, size_t bytes);

#endif
