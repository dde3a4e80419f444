/* Messages between two ranks, over a transport. All that ranks exchange goes through here, so that a waiting
 * rank knows for whom it waits.
 *
 * Long messages are sent in parts, ND_WIRE_DEPTH of them in flight in each direction; they arrive in order.
 * Any thread may call, one at a time. */
#pragma once

#include "dist/transport.h"
#include "dist/wire_sizes.h"

typedef struct nd_wire nd_wire;

/* The wire owns the transport from here on. The end is collective unless something has failed. Errors:
 * ND_ENOMEM. */
nd_status nd_wire_create(nd_transport *transport, nd_wire **wire);
void nd_wire_destroy(nd_wire *wire);

/* Every collective begins with this. `step` and `phase` say where in the run it belongs, for errors.
 * Errors: ND_EPEER when one has failed before. */
nd_status nd_wire_begin(nd_wire *wire, nd_collective kind, int64_t step, const char *phase);

/* The subject of the messages that follow, for errors: "blk.0.attn_q.weight"; NULL: none. */
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

/* Messages one by one, each a part at most; several are on their way at once. Receive number i may be started
 * when number i - ND_WIRE_DEPTH has been finished, send i when send i - ND_WIRE_DEPTH has been; numbers count from
 * 0 in each collective. With `data` NULL what is received lies in memory of the wire until the next receive is
 * started in its place, and what is sent is what was made in nd_wire_room. */
nd_status nd_wire_start_receive(nd_wire *wire, int64_t number, void *data, int bytes, int from);
nd_status nd_wire_finish_receive(nd_wire *wire, int64_t number);
const void *nd_wire_received(const nd_wire *wire, int64_t number);

/* Whether receives that are started from now on may get less than `bytes`, and what the last one that was finished
 * got. */
void nd_wire_take_shorter(nd_wire *wire, bool takes);
int nd_wire_received_bytes(const nd_wire *wire);
void *nd_wire_room(nd_wire *wire, int64_t number);
nd_status nd_wire_start_send(nd_wire *wire, int64_t number, const void *data, int bytes, int to);
nd_status nd_wire_finish_send(nd_wire *wire, int64_t number);

/* After an error of one of these: nothing may arrive any more in memory that its owner will free. */
void nd_wire_give_up(nd_wire *wire);

/* Of a part: nd_wire_part_bytes of its comm. */
size_t nd_wire_message_bytes(const nd_wire *wire);

bool nd_wire_failed(const nd_wire *wire);

/* Seconds on the clock that waits are measured with. */
double nd_wire_now(const nd_wire *wire);

/* Whether later waits yield the core at once, as is right beside a thread that computes; otherwise they poll
 * for a while first. */
void nd_wire_set_yielding(nd_wire *wire, bool yields);

/* Makes another thread's wait, present or future, fail soon. May be called at any time. */
void nd_wire_interrupt(nd_wire *wire);
