/* Formats of a weight between ranks, whole or as a change.
 *
 * Whole: scales, then codes in 2 bits each (full) or five to a byte (full_base3), exactly; or dense
 * values in the compute type.
 *
 * Change of a dense weight (int8_delta): its owner encodes x = master - replica in blocks of
 * ND_DELTA_BLOCK as s = max|x| and rint(127 x / s), one byte per value, and all ranks including the
 * owner add s q / 127 to their replica. So replicas stay equal to the bit, and the rounding error
 * is part of the next change: the replica itself is the error feedback. The result does not depend
 * on the number of ranks. */
#pragma once

#include "core/base/arena.h"
#include "core/config/config.h"
#include "core/model/linear.h"

enum { ND_DELTA_BLOCK = 256 };

/* Bytes of a weight on the wire, a multiple of 4: whole, in full or full_base3 (changed
 * codes are one stream: dist/weights/code_stream.h); and of the change of a dense weight. */
size_t nd_weight_wire_bytes(const nd_weight *w, nd_weight_sync format);
size_t nd_weight_delta_bytes(const nd_weight *w);

/* Encode and decode a weight at `at`: backend memory of nd_weight_wire_bytes, aligned to 4. */
nd_status nd_weight_wire_pack(nd_backend *b, const nd_weight *w, nd_weight_sync format, char *at);
nd_status nd_weight_wire_unpack(nd_backend *b, const nd_weight *w, nd_weight_sync format,
                                const char *at);

/* Encode the change from the replica `w` to `master`, and add the change at `at` to the replica.
 * scratch: f32 [1, n], n a multiple of ND_DELTA_BLOCK; overwritten. */
nd_status nd_weight_delta_encode(nd_backend *b, const nd_weight *w, nd_cview master,
                                 nd_view scratch, char *at);
nd_status nd_weight_delta_apply(nd_backend *b, const nd_weight *w, nd_view scratch, char *at);
