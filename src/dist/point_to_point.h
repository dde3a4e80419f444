/* Messages between two ranks, over a transport. All that ranks exchange goes through here, so that whoever
 * waits knows for whom.
 *
 * Long messages move in parts, of which ND_WIRE_DEPTH are on their way at once in each direction; they
 * arrive in their order. One thread at a time may be in here, whichever it is. */
#ifndef ND_DIST_POINT_TO_POINT_H
#define ND_DIST_POINT_TO_POINT_H

#include "dist/transport.h"
#include "dist/wire_sizes.h"

typedef struct nd_wire nd_wire;

/* Makes `part`, bytes [at, at + bytes) of a message that is sent, or takes it from one that is received.
 * Parts come in their order; all but the last have ND_WIRE_PART_BYTES. */
typedef nd_status (*nd_wire_part)(void *context, void *part, size_t at, size_t bytes);

/* The wire owns the transport from here on. The end is collective unless something has failed. Errors:
 * ND_ENOMEM. */
nd_status nd_wire_create(nd_transport *transport, nd_wire **wire);
void nd_wire_destroy(nd_wire *wire);

/* Every collective begins with this. `step` and `phase` say where in the run it belongs, for errors.
 * Errors: ND_EPEER when one has failed before. */
nd_status nd_wire_begin(nd_wire *wire, nd_collective kind, int64_t step, const char *phase);

/* What the messages that follow are about, for errors: "blk.0.attn_q.weight"; NULL: nothing to say. */
void nd_wire_subject(nd_wire *wire, const char *subject);

/* Errors: ND_EPEER naming this rank, its step and phase, the peer and what it does. */
nd_status nd_wire_send(nd_wire *wire, const void *data, size_t bytes, int to);
nd_status nd_wire_receive(nd_wire *wire, void *data, size_t bytes, int from);

/* Both at once; data[0..out_bytes) is sent in parts while the other is received in parts. */
nd_status nd_wire_exchange(nd_wire *wire, const void *out, size_t out_bytes, int to, void *in,
                           size_t in_bytes, int from);

/* Receives from rank `from` and sends each part on to `to` as it comes; from < 0: sends `data`. At most
 * ND_WIRE_FAN of them. */
enum { ND_WIRE_FAN = 32 };
nd_status nd_wire_relay(nd_wire *wire, void *data, size_t bytes, int from, const int *to,
                        int to_count);

/* Messages that are made and taken part by part, in memory of the wire. The receiver works on one part
 * while the next ones arrive. */
nd_status nd_wire_send_parts(nd_wire *wire, nd_wire_part make, void *context, size_t bytes, int to);
nd_status nd_wire_receive_parts(nd_wire *wire, nd_wire_part take, void *context, size_t bytes,
                                int from);

bool nd_wire_failed(const nd_wire *wire);

/* Seconds on the clock that waits are measured with. */
double nd_wire_now(const nd_wire *wire);

/* Whether waits that follow leave the processor to others at once, as beside a thread that computes;
 * else they poll for a while first. */
void nd_wire_stand_back(nd_wire *wire, bool stand_back);

/* Makes a wait of another thread, now or later, fail soon. May be called at any time. */
void nd_wire_interrupt(nd_wire *wire);

#endif
