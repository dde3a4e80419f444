/* Messages between two ranks under MPI, with a deadline. All that ranks exchange goes through here, so
 * that whoever waits knows for whom.
 *
 * A message carries the number and the kind of the collective it belongs to, in its tag: a rank that
 * is in another collective is found out by its first message. A rank that has waited comm->
 * timeout_seconds asks whom it waits for whom that one waits for, and so on, until one does not answer
 * or the chain closes; the error tells the chain. Ranks answer while they wait, so one that does not
 * is dead, stopped, or busy outside the wire. Time in which the waiting process itself was stopped
 * does not count.
 *
 * Long messages move in parts, of which ND_WIRE_DEPTH are in flight at once in each direction; they
 * arrive in their order. One thread at a time may be in here, whichever it is. */
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

/* Makes `part`, bytes [at, at + bytes) of a message that is sent, or takes it from one that is received.
 * Parts come in their order; all but the last have ND_WIRE_PART_BYTES. */
typedef nd_status (*nd_wire_part)(void *context, void *part, size_t at, size_t bytes);

/* Both collective, the latter unless something has failed; before MPI is finalized. Errors: ND_ENOMEM,
 * ND_EPEER. */
nd_status nd_wire_create(nd_comm *comm, nd_wire **wire);
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

/* Whether waits that follow yield the processor after a few polls, as beside a thread that computes; else
 * they poll for a while first. */
void nd_wire_set_yielding(nd_wire *wire, bool yields);

/* Makes a wait of another thread, now or later, fail soon. May be called at any time. */
void nd_wire_interrupt(nd_wire *wire);

#endif
