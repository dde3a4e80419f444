/* Formats of gradients between ranks.
 *
 * fp32 is exact. bf16 rounds to nearest. int8 uses blocks of 252 consecutive values, each with its
 * own scale: s = max|x| / 127 in f32, then rint(x / s) in one byte per value: 256 bytes, 1.016 per
 * value. A block with a NaN or an infinity gets a scale of NaN and decodes to NaN, so that
 * receivers detect it; bf16 keeps both as they are. int4 is the same with s = max|x| / 7 for 504
 * values, two to a byte: 0.508 bytes per value; only outer steps use it (train/outer_step.h).
 *
 * Error feedback (Seide et al., Interspeech 2014; arXiv:1901.09847): the sender keeps the rounding
 * error of a value and adds it to the value it sends next, so that sums over steps lose no more
 * than the last error. Errors are kept in blocks of 8 bits, too, which loses less than 1/254 of the
 * largest error in a block.
 *
 * Messages may be split at multiples of ND_WIRE_BLOCK_BYTES, which are boundaries of blocks. */
#pragma once

#include "core/config/config.h"

#include <stddef.h>

enum { ND_WIRE_BLOCK_BYTES = 256 };

/* Smaller tensors (norms) are sent in f32: their bytes are negligible. */
enum { ND_WIRE_ROUNDED_MIN = 4096 };

/* The format for a tensor of `count` values when the run's is `chosen`. */
nd_gradient_wire nd_gradient_wire_for(nd_gradient_wire chosen, int64_t count);

/* "fp32", "bf16", "int8", "int4". */
const char *nd_gradient_wire_name(nd_gradient_wire format);

/* The encoded bytes of `count` values, and the number of values in `bytes` encoded bytes. */
size_t nd_gradient_wire_bytes(nd_gradient_wire format, int64_t count);
int64_t nd_gradient_wire_values(nd_gradient_wire format, size_t bytes);

/* Bytes of the residual of `count` values; 0 for fp32. Zeroed memory is an empty residual. It can
 * be split wherever its message can. */
size_t nd_gradient_residual_bytes(nd_gradient_wire format, int64_t count);

/* wire = values + residual, rounded; residual = the rounding error (NULL: no error feedback). A
 * block that is not finite leaves its residual unchanged. Host memory; `wire` aligned to 4
 * bytes. */
void nd_gradient_wire_encode(nd_gradient_wire format, void *wire, const float *values,
                             void *residual, int64_t count);

/* into += the decoded `wire`. Host memory; `wire` aligned to 4 bytes. */
void nd_gradient_wire_add(nd_gradient_wire format, float *into, const void *wire, int64_t count);
