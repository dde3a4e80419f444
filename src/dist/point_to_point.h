/* Messages between two ranks under MPI, with a deadline. All that ranks exchange goes through here, so
 * that a waiting rank knows for whom it waits.
 *
 * A message's tag holds the number and kind of its collective, so a rank in another collective is detected
 * at its first message. A rank that has waited comm->timeout_seconds asks its peer for whom that one
 * waits, and so on, until one does not answer or the chain closes; the error describes the chain. Ranks
 * answer while they wait, so one that does not is dead, stopped, or busy elsewhere. Time during which the
 * waiting process itself was stopped does not count.
 *
 * Long messages are sent in parts, ND_WIRE_DEPTH of them in flight in each direction; they arrive in order.
 * Any thread may call, one at a time. */
#ifndef ND_DIST_POINT_TO_POINT_H
#define ND_DIST_POINT_TO_POINT_H

#include "dist/comm.h"
#include "dist/wire_sizes.h"

#include <mpi.h>

typedef enum nd_collective {
    ND_COLLECTIVE_NONE,
    ND_COLLECTIVE_BARRIER,
    ND_COLLECTIVE_BROADCAST,
    ND_COLLECTIVE_ALLGATHER,
    ND_COLLECTIVE_GATHER,
    ND_COLLECTIVE_REDUCTION,
    ND_COLLECTIVE_COUNT
} nd_collective;

typedef struct nd_wire nd_wire;

/* Produces `part`, bytes [at, at + bytes) of a message to send, or consumes it from a received one. Parts
 * come in order; all but the last have ND_WIRE_PART_BYTES. */
typedef nd_status (*nd_wire_part)(void *context, void *part, size_t at, size_t bytes);

/* Both collective, the latter unless something has failed; before MPI is finalized. Errors: ND_ENOMEM,
 * ND_EPEER. */
nd_status nd_wire_create(nd_comm *comm, nd_wire **wire);
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

/* Messages produced and consumed part by part. The receiver works on one part while the next arrive. */
nd_status nd_wire_send_parts(nd_wire *wire, nd_wire_part make, void *context, size_t bytes, int to);
nd_status nd_wire_receive_parts(nd_wire *wire, nd_wire_part take, void *context, size_t bytes,
                                int from);

bool nd_wire_failed(const nd_wire *wire);

/* Whether later waits yield the core at once, as is right beside a thread that computes; otherwise they poll
 * for a while first. */
void nd_wire_set_yielding(nd_wire *wire, bool yields);

/* Makes another thread's wait, present or future, fail soon. May be called at any time. */
void nd_wire_interrupt(nd_wire *wire);

#endif
