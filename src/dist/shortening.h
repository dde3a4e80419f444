/* Lossless compression of exact gradients (dist/short_floats.h) on their way to other hosts:
 * always, or while the link is slow. The sender decides; a part shorter than expected is
 * compressed. Sums are the same to the bit. Gradients in device memory are not compressed. */
#pragma once

#include "dist/comm.h"

/* Below this many bytes per second a link is slow. One core encodes 2 GB/s: faster links do not
 * gain. */
static const double ND_SHORTENING_SLOW = 5e8;

typedef struct nd_shortening {
    double bytes; /* of values sent to other hosts in the current reduction */
    double rate;  /* bytes per second of the last reduction that sent enough of them; 0: none yet */
} nd_shortening;

/* Prepares values [0, *bytes) for sending to `peer`. Returns `values` to send them as they are, or
 * NULL when they were compressed into `scratch`, with *bytes their new length. */
const void *nd_shortened_part_encode(nd_shortening *s, const nd_comm *comm, int peer,
                                     const void *values, void *scratch, size_t *bytes);

/* Stores or, with `add`, adds a received part of `came` bytes, which stands for bytes [at, at +
 * bytes) of a slot of a piece in host memory. Errors: ND_EPEER. */
nd_status nd_shortened_part_decode(const nd_comm_piece *piece, int slot, const void *part,
                                   size_t came, size_t at, size_t bytes, bool add);

/* Records the duration of a reduction. */
void nd_shortening_measure(nd_shortening *s, double seconds);
