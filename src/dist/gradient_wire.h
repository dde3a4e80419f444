/* Formats of gradients between ranks.
 *
 * fp32 is exact. bf16 rounds to the nearest. int8 takes blocks of 252 consecutive values, each with its
 * own scale: s = max|x| / 127 in f32, then rint(x / s) in a byte a value: 256 bytes, 1.016 a value. A
 * block that holds a NaN or an infinity gets a scale of NaN and decodes to NaN, so that it is found
 * wherever it arrives; bf16 keeps both as they are.
 *
 * Error feedback (Seide et al., Interspeech 2014; arXiv:1901.09847): what rounding took from a value is
 * kept by its sender and added to the value it sends next, so that sums over steps lose no more than
 * what is kept at the end. It is kept in blocks of 8 bits too: what that loses is below 1/254 of the
 * largest loss of a block.
 *
 * Messages may be cut at multiples of ND_WIRE_BLOCK_BYTES: whole blocks lie before and after. */
#ifndef ND_DIST_GRADIENT_WIRE_H
#define ND_DIST_GRADIENT_WIRE_H

#include "core/config/config.h"

#include <stddef.h>

enum { ND_WIRE_BLOCK_BYTES = 256 };

/* Smaller tensors (norms) are sent in f32: they weigh nothing. */
enum { ND_WIRE_ROUNDED_MIN = 4096 };

/* The format in which a tensor of so many values is sent where `chosen` is the run's. */
nd_gradient_wire nd_gradient_wire_for(nd_gradient_wire chosen, int64_t count);

/* "fp32", "bf16", "int8". */
const char *nd_gradient_wire_name(nd_gradient_wire format);

/* Bytes of `count` values on the wire, and values in so many bytes of it. */
size_t nd_gradient_wire_bytes(nd_gradient_wire format, int64_t count);
int64_t nd_gradient_wire_values(nd_gradient_wire format, size_t bytes);

/* Bytes of the residual of `count` values; 0 for fp32. Zeros are an empty one. Where a message is cut,
 * so is the residual. */
size_t nd_gradient_residual_bytes(nd_gradient_wire format, int64_t count);

/* wire = values + residual, rounded; residual = what rounding took (NULL: there is none). A block that
 * is not finite leaves its residual as it was. Host memory; `wire` aligned to 4 bytes. */
void nd_gradient_wire_encode(nd_gradient_wire format, void *wire, const float *values,
                             void *residual, int64_t count);

/* into += what `wire` holds. */
void nd_gradient_wire_add(nd_gradient_wire format, float *into, const void *wire, int64_t count);

#endif
