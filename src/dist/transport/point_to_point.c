#include "dist/transport/point_to_point.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

/* Part i of a message uses the slots at i % ND_WIRE_DEPTH: 1 to receive, ND_WIRE_FAN to send. */
static_assert(ND_WIRE_DEPTH * (1 + ND_WIRE_FAN) <= ND_TRANSPORT_SLOTS, "slots for all parts");

struct nd_wire {
    nd_comm *comm;
    nd_transport *transport;
    uint64_t sent; /* payload bytes since the last nd_wire_set_sent */
    char *taken;   /* [ND_WIRE_DEPTH][ND_WIRE_PART_BYTES] received messages */
    char *made;    /* the same for messages to send */
};

nd_status nd_wire_create(nd_transport *transport, nd_wire **wire)
{
    nd_wire *made = calloc(1, sizeof *made);
    char *parts = malloc((size_t)2 * ND_WIRE_DEPTH * ND_WIRE_PART_BYTES);
    if (!made || !parts) {
        free(made);
        free(parts);
        return ND_FAIL(ND_ENOMEM, "no memory for the parts of messages");
    }
    made->comm = transport->comm;
    made->transport = transport;
    made->taken = parts;
    made->made = parts + (size_t)ND_WIRE_DEPTH * ND_WIRE_PART_BYTES;
    *wire = made;
    return ND_OK;
}

void nd_wire_destroy(nd_wire *wire)
{
    if (!wire)
        return;
    if (wire->transport->ops.destroy(wire->transport))
        free(wire->taken);
    free(wire);
}

bool nd_wire_failed(const nd_wire *wire)
{
    return wire->transport->failed;
}

double nd_wire_now(const nd_wire *wire)
{
    return wire->transport->ops.now(wire->transport);
}

void nd_wire_set_yielding(nd_wire *wire, bool yields)
{
    wire->transport->ops.set_yielding(wire->transport, yields);
}

uint64_t nd_wire_sent(const nd_wire *wire)
{
    return wire->sent;
}

void nd_wire_set_sent(nd_wire *wire, uint64_t bytes)
{
    wire->sent = bytes;
}

void nd_wire_interrupt(nd_wire *wire)
{
    wire->transport->ops.interrupt(wire->transport);
}

nd_status nd_wire_begin(nd_wire *wire, nd_collective kind, int64_t step, const char *phase)
{
    nd_situation *now = &wire->transport->situation;
    if (wire->transport->failed)
        return ND_FAIL(ND_EPEER, "rank %d: communication has failed before", wire->comm->rank);
    now->kind = (int32_t)kind;
    now->sequence++;
    now->step = step;
    snprintf(now->phase, sizeof now->phase, "%s", phase ? phase : "start");
    nd_wire_subject(wire, NULL);
    return ND_OK;
}

void nd_wire_subject(nd_wire *wire, const char *subject)
{
    nd_situation *now = &wire->transport->situation;
    snprintf(now->subject, sizeof now->subject, "%s", subject ? subject : "");
}

static int receive_slot(int64_t part)
{
    return (int)(part % ND_WIRE_DEPTH) * (1 + ND_WIRE_FAN);
}

static int send_slot(int64_t part, int to)
{
    return receive_slot(part) + 1 + to;
}

static nd_status start_receive(nd_wire *wire, int slot, void *data, int bytes, int from)
{
    return wire->transport->ops.receive(wire->transport, slot, data, bytes, from);
}

static nd_status start_send(nd_wire *wire, int slot, const void *data, int bytes, int to)
{
    ND_TRY(wire->transport->ops.send(wire->transport, slot, data, bytes, to));
    wire->sent += (uint64_t)bytes;
    return ND_OK;
}

static nd_status wait(nd_wire *wire, int slot)
{
    return wire->transport->ops.wait(wire->transport, slot);
}

static char *memory_of(char *parts, int64_t number)
{
    return parts + (size_t)(number % ND_WIRE_DEPTH) * ND_WIRE_PART_BYTES;
}

nd_status nd_wire_start_receive(nd_wire *wire, int64_t number, void *data, int bytes, int from)
{
    return start_receive(wire, receive_slot(number), data ? data : memory_of(wire->taken, number),
                         bytes, from);
}

nd_status nd_wire_finish_receive(nd_wire *wire, int64_t number)
{
    return wait(wire, receive_slot(number));
}

const void *nd_wire_received(const nd_wire *wire, int64_t number)
{
    return memory_of(wire->taken, number);
}

void nd_wire_accept_shorter(nd_wire *wire, bool accepts)
{
    wire->transport->accepts_short = accepts;
}

int nd_wire_received_bytes(const nd_wire *wire)
{
    return wire->transport->received;
}

void *nd_wire_send_buffer(nd_wire *wire, int64_t number)
{
    return memory_of(wire->made, number);
}

nd_status nd_wire_start_send(nd_wire *wire, int64_t number, const void *data, int bytes, int to)
{
    return start_send(wire, send_slot(number, 0), data ? data : memory_of(wire->made, number),
                      bytes, to);
}

nd_status nd_wire_finish_send(nd_wire *wire, int64_t number)
{
    return wait(wire, send_slot(number, 0));
}

void nd_wire_cancel(nd_wire *wire)
{
    wire->transport->failed = true;
    wire->transport->ops.cancel(wire->transport);
}

/* A transfer in parts: a message in, a message out, or both. */
typedef struct movement {
    size_t in_bytes, out_bytes;
    int from;
    char *in;
    const int *to;
    int to_count;
    const char *out;
    bool relays; /* forwards what it receives */
} movement;

size_t nd_wire_message_bytes(const nd_wire *wire)
{
    return nd_wire_part_bytes(wire->comm);
}

static nd_status receive_part(nd_wire *wire, const movement *m, int64_t part)
{
    const size_t size = nd_wire_message_bytes(wire);
    return start_receive(wire, receive_slot(part), m->in + nd_wire_part_start(part, size),
                         nd_wire_part_length(m->in_bytes, part, size), m->from);
}

static nd_status finish_sends(nd_wire *wire, const movement *m, int64_t part)
{
    for (int i = 0; i < m->to_count; i++)
        ND_TRY(wait(wire, send_slot(part, i)));
    return ND_OK;
}

static nd_status send_part(nd_wire *wire, const movement *m, int64_t part)
{
    const size_t size = nd_wire_message_bytes(wire);
    if (part >= ND_WIRE_DEPTH)
        ND_TRY(finish_sends(wire, m, part - ND_WIRE_DEPTH));
    for (int i = 0; i < m->to_count; i++)
        ND_TRY(start_send(wire, send_slot(part, i), m->out + nd_wire_part_start(part, size),
                          nd_wire_part_length(m->out_bytes, part, size), m->to[i]));
    return ND_OK;
}

/* Round i waits for part i and keeps parts up to i + ND_WIRE_DEPTH - 1 in flight; a relay forwards
 * part i. No deadlock: no rank waits for a part that another sends only in a later round, so the
 * rank in the earliest round can always continue. */
static nd_status move_parts(nd_wire *wire, const movement *m)
{
    const int64_t in = nd_wire_parts(m->in_bytes, nd_wire_message_bytes(wire));
    const int64_t out = nd_wire_parts(m->out_bytes, nd_wire_message_bytes(wire));
    int64_t receives = 0, sends = 0;
    for (int64_t i = 0; i < in || i < out; i++) {
        for (; receives < in && receives < i + ND_WIRE_DEPTH; receives++)
            ND_TRY(receive_part(wire, m, receives));
        for (; !m->relays && sends < out && sends < i + ND_WIRE_DEPTH; sends++)
            ND_TRY(send_part(wire, m, sends));
        if (i < in)
            ND_TRY(wait(wire, receive_slot(i)));
        if (m->relays)
            ND_TRY(send_part(wire, m, i));
    }
    for (int64_t i = out > ND_WIRE_DEPTH ? out - ND_WIRE_DEPTH : 0; i < out; i++)
        ND_TRY(finish_sends(wire, m, i));
    return ND_OK;
}

static nd_status move(nd_wire *wire, const movement *m)
{
    const nd_status status = move_parts(wire, m);
    if (status != ND_OK)
        nd_wire_cancel(wire);
    return status;
}

nd_status nd_wire_exchange(nd_wire *wire, const void *out, size_t out_bytes, int to, void *in,
                           size_t in_bytes, int from)
{
    return move(wire, &(movement){.in_bytes = in_bytes,
                                  .in = in,
                                  .from = from,
                                  .out_bytes = out_bytes,
                                  .out = out,
                                  .to = &to,
                                  .to_count = 1});
}

nd_status nd_wire_send(nd_wire *wire, const void *data, size_t bytes, int to)
{
    return nd_wire_exchange(wire, data, bytes, to, NULL, 0, to);
}

nd_status nd_wire_receive(nd_wire *wire, void *data, size_t bytes, int from)
{
    return nd_wire_exchange(wire, NULL, 0, from, data, bytes, from);
}

nd_status nd_wire_relay(nd_wire *wire, void *data, size_t bytes, int from, const int *to,
                        int to_count)
{
    return move(wire, &(movement){.in_bytes = from < 0 ? 0 : bytes,
                                  .in = data,
                                  .from = from,
                                  .out_bytes = to_count > 0 ? bytes : 0,
                                  .out = data,
                                  .to = to,
                                  .to_count = to_count,
                                  .relays = from >= 0 && to_count > 0});
}
