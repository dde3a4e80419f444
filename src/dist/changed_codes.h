/* Ternary codes encoded as changes. A step changes one to three in a hundred (docs/wire.md), so a byte per
 * change is shorter than any encoding of all of them.
 *
 * In each byte the low 7 bits count unchanged codes; 127 means just these. Otherwise the next code
 * changes to the following value (high bit 0) or the one after that (1), in the order -1, 0, 1, -1. */
#pragma once

#include "core/base/error.h"

#include <stddef.h>
#include <stdint.h>

/* Writes to `out` and returns the bytes. When that takes more than `capacity`, returns capacity + 1, and
 * what `out` holds is undefined. */
size_t nd_changed_codes_make(const int8_t *before, const int8_t *now, int64_t count, uint8_t *out,
                             size_t capacity);

/* Errors: ND_EPEER when a change lies beyond the last code. */
nd_status nd_changed_codes_apply(int8_t *codes, int64_t count, const uint8_t *in, size_t bytes);
