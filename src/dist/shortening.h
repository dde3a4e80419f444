/* Which parts of exact gradients are sent shortened (dist/short_floats.h): those to other hosts, always or while the
 * link is slow. A sender decides by itself; what comes shorter than it should has been shortened. Sums are the same to
 * the bit. Gradients on a device are sent as they are. */
#pragma once

#include "dist/comm.h"

/* Bytes a second below which a link is slow. One core encodes 2 GB/s: a link much faster than that is better left
 * alone. */
static const double ND_SHORTENING_SLOW = 5e8;

typedef struct nd_shortening {
    double bytes; /* of values, sent to other hosts in the reduction at hand */
    double rate;  /* of the last one with enough of them, bytes a second; 0: none yet */
} nd_shortening;

/* Values [0, *bytes) on their way to `peer`: returns what to send, which is `values`, or NULL where that has been made
 * in `room`, of *bytes now. */
const void *nd_shortened_part_make(nd_shortening *s, const nd_comm *comm, int peer,
                                   const void *values, void *room, size_t *bytes);

/* Of a piece in host memory: what has come in `came` bytes stands for [at, at + bytes) of a slot, and is added or takes
 * its place. Errors: ND_EPEER. */
nd_status nd_shortened_part_take(const nd_comm_piece *piece, int slot, const void *part,
                                 size_t came, size_t at, size_t bytes, bool add);

/* A reduction has taken so many seconds. */
void nd_shortening_measure(nd_shortening *s, double seconds);
