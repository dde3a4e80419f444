/* Formats of a weight between ranks, whole or as its change.
 *
 * Whole: scales, then codes in 2 bits each (packed) or five to a byte (trits), to the bit; or dense
 * values as the replica computes with them.
 *
 * Change of a dense weight (int8_delta): its owner takes master - replica in blocks of ND_DELTA_BLOCK,
 * s = max|x| and rint(127 x / s) in a byte a value, and all ranks, the owner too, add s q / 127 to their
 * replica. So replicas stay equal to the bit, and what rounding took is in the next change: the replica
 * itself is the error feedback. It does not depend on the number of ranks. */
#pragma once

#include "core/base/arena.h"
#include "core/config/config.h"
#include "core/model/linear.h"

enum { ND_DELTA_BLOCK = 256 };

/* Bytes of a weight on the wire, a multiple of 4. The format is packed or trits; `changed` is not of one
 * weight (dist/code_stream.h). */
size_t nd_weight_wire_bytes(const nd_weight *w, nd_weight_wire format);
size_t nd_weight_delta_bytes(const nd_weight *w);

/* `at`: so many bytes of backend memory, aligned to 4. */
nd_status nd_weight_wire_pack(nd_backend *b, const nd_weight *w, nd_weight_wire format, char *at);
nd_status nd_weight_wire_unpack(nd_backend *b, const nd_weight *w, nd_weight_wire format,
                                const char *at);

/* scratch: f32 [1, n], n a multiple of ND_DELTA_BLOCK; overwritten. */
nd_status nd_weight_delta_make(nd_backend *b, const nd_weight *w, nd_cview master, nd_view scratch,
                               char *at);
nd_status nd_weight_delta_apply(nd_backend *b, const nd_weight *w, nd_view scratch, char *at);
