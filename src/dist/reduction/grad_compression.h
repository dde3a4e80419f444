/* Lossless compression of exact gradients (dist/reduction/float_compression.h) on their way to
 * other hosts: always, or while the link is slow and the rest of the step waits for it. The sender
 * decides; a part shorter than expected is compressed. Sums are the same to the bit. Gradients in
 * device memory are not compressed. */
#pragma once

#include "dist/comm.h"

/* Below this many bytes per second a link is slow. One core encodes 2 GB/s: faster links do not
 * gain. */
static const double ND_GRAD_COMPRESSION_BELOW = 5e8;

/* What compression leaves of the bytes of gradients, as runs of this program measured it. */
static const double ND_GRAD_COMPRESSION_RATIO = 0.86;

typedef struct nd_grad_compressor {
    double bytes; /* of values sent to other hosts in the current reduction */
    double rate;  /* bytes per second of the last reduction that sent enough of them; 0: none yet */
} nd_grad_compressor;

/* Prepares values [0, *bytes) for sending to `peer`. `hidden`: computation goes on meanwhile, and
 * nothing waits for the link. Returns `values` to send them as they are, or NULL when they were
 * compressed into `scratch`, with *bytes their new length. */
const void *nd_grad_compressor_encode(nd_grad_compressor *s, const nd_comm *comm, int peer,
                                      const void *values, bool hidden, void *scratch,
                                      size_t *bytes);

/* Stores or, with `add`, adds a received part of `came` bytes, which stands for bytes [at, at +
 * bytes) of a slot of a piece in host memory. Errors: ND_EPEER. */
nd_status nd_grad_decompress(const nd_comm_piece *piece, int slot, const void *part, size_t came,
                             size_t at, size_t bytes, bool add);

/* Records the duration of a reduction. */
void nd_grad_compressor_measure(nd_grad_compressor *s, double seconds);
