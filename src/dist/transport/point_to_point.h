/* Messages between two ranks over a transport. All communication of ranks goes through here, so
 * that a waiting rank knows which rank it waits for.
 *
 * Long messages are sent in parts, ND_WIRE_DEPTH of them in flight in each direction, and arrive in
 * order. Any thread may call these functions, one at a time. */
#pragma once

#include "dist/transport/transport.h"
#include "dist/transport/wire_sizes.h"

typedef struct nd_wire nd_wire;

/* Takes over the transport, even after an error. Destroying is collective unless a function has
 * failed. Errors: ND_ENOMEM. */
nd_status nd_wire_create(nd_transport *transport, nd_wire **wire);
void nd_wire_destroy(nd_wire *wire);

/* Begins a collective; every collective starts with it. `step` and `phase` say where the run is,
 * for errors. Errors: ND_EPEER when an earlier one has failed. */
nd_status nd_wire_begin(nd_wire *wire, nd_collective kind, int64_t step, const char *phase);

/* Names the subject of the following messages, for errors: "blk.0.attn_q.weight"; NULL: none. */
void nd_wire_subject(nd_wire *wire, const char *subject);

/* Send or receive a whole message; return when the buffer may be reused. Errors: ND_EPEER naming
 * this rank, its step and phase, the peer and what the peer is doing. */
nd_status nd_wire_send(nd_wire *wire, const void *data, size_t bytes, int to);
nd_status nd_wire_receive(nd_wire *wire, void *data, size_t bytes, int from);

/* Sends and receives at the same time, both in parts. */
nd_status nd_wire_exchange(nd_wire *wire, const void *out, size_t out_bytes, int to, void *in,
                           size_t in_bytes, int from);

/* Receives `data` from rank `from` and forwards each part, as it arrives, to the ranks
 * to[0..to_count), at most ND_WIRE_FAN; from < 0: sends `data` to them. */
enum { ND_WIRE_FAN = 32 };
nd_status nd_wire_relay(nd_wire *wire, void *data, size_t bytes, int from, const int *to,
                        int to_count);

/* Single messages of at most one part, several in flight. Message number i, counted from 0 in each
 * collective and direction, may start once number i - ND_WIRE_DEPTH is finished. With `data` NULL
 * the wire provides the memory: a received message is at nd_wire_received until message number +
 * ND_WIRE_DEPTH starts, and a message to send is written to nd_wire_send_buffer. */
nd_status nd_wire_start_receive(nd_wire *wire, int64_t number, void *data, int bytes, int from);
nd_status nd_wire_finish_receive(nd_wire *wire, int64_t number);
const void *nd_wire_received(const nd_wire *wire, int64_t number);

/* Sets whether receives that start from now on accept shorter messages; the length of the last
 * finished one. */
void nd_wire_accept_shorter(nd_wire *wire, bool accepts);
int nd_wire_received_bytes(const nd_wire *wire);
void *nd_wire_send_buffer(nd_wire *wire, int64_t number);
nd_status nd_wire_start_send(nd_wire *wire, int64_t number, const void *data, int bytes, int to);
nd_status nd_wire_finish_send(nd_wire *wire, int64_t number);

/* After an error: makes sure that no message arrives in memory that is about to be freed. */
void nd_wire_cancel(nd_wire *wire);

/* Bytes of a part: nd_comm.part_bytes. */
size_t nd_wire_message_bytes(const nd_wire *wire);

bool nd_wire_failed(const nd_wire *wire);

/* The time in seconds on the clock that measures waits. */
double nd_wire_now(const nd_wire *wire);

/* Sets whether waits from now on yield the core at once, because another thread computes, or poll
 * first. */
void nd_wire_set_yielding(nd_wire *wire, bool yields);

/* The count of payload bytes sent. Only the thread that communicates may call these. */
uint64_t nd_wire_sent(const nd_wire *wire);
void nd_wire_set_sent(nd_wire *wire, uint64_t bytes);

/* Makes a present or future wait of another thread fail soon. May be called at any time. */
void nd_wire_interrupt(nd_wire *wire);
