/* The interface between communication algorithms (dist/transport/point_to_point.h and above) and
 * what carries their bytes: MPI (dist/transport/transport_mpi.c), or memory and virtual clocks
 * (dist/simulation/transport_simulated.c).
 *
 * A message is started in a slot, which is busy until it has been waited for. Messages from one
 * rank to another arrive in the order in which they were started. A send may be delayed until its
 * receive has started. Any thread may call these functions, one at a time. */
#pragma once

#include "dist/comm.h"

enum { ND_TRANSPORT_SLOTS = 160 };

typedef enum nd_collective {
    ND_COLLECTIVE_NONE,
    ND_COLLECTIVE_BARRIER,
    ND_COLLECTIVE_BROADCAST,
    ND_COLLECTIVE_ALLGATHER,
    ND_COLLECTIVE_GATHER,
    ND_COLLECTIVE_REDUCTION,
    ND_COLLECTIVE_EXCHANGE,
    ND_COLLECTIVE_COUNT
} nd_collective;

enum { ND_PHASE_MAX = 32, ND_SUBJECT_MAX = 96 };

/* What a rank is doing, as it tells its peers while it waits. */
typedef struct nd_situation {
    int32_t rank, waits_for;
    int32_t kind; /* nd_collective */
    int32_t receives;
    int64_t sequence, step;
    char phase[ND_PHASE_MAX], subject[ND_SUBJECT_MAX];
} nd_situation;

typedef struct nd_transport nd_transport;

typedef struct nd_transport_ops {
    /* Frees the transport. Returns false when unfinished messages may still use their memory, which
     * then must never be freed. */
    bool (*destroy)(nd_transport *transport);
    double (*now)(nd_transport *transport); /* seconds since an arbitrary moment */

    /* Start a message of at most INT_MAX bytes. Not collective. Errors: ND_EPEER. */
    nd_status (*send)(nd_transport *transport, int slot, const void *data, int bytes, int to);
    nd_status (*receive)(nd_transport *transport, int slot, void *data, int bytes, int from);

    /* Waits for the message in `slot`; returns at once where there is none. Errors: ND_EPEER naming
     * this rank, its step and phase, the peer and what the peer is doing; also for a message of
     * unexpected length or of another collective. */
    nd_status (*wait)(nd_transport *transport, int slot);

    /* After an error: cancels receives, so that nothing arrives in memory that is about to be
     * freed. */
    void (*cancel)(nd_transport *transport);

    /* nd_wire_set_yielding and nd_wire_interrupt. */
    void (*set_yielding)(nd_transport *transport, bool yields);
    void (*interrupt)(nd_transport *transport);
} nd_transport_ops;

struct nd_transport {
    nd_transport_ops ops;
    nd_comm *comm; /* not owned */
    nd_situation situation;
    bool failed;
    bool accepts_short; /* in: receives that start from now on accept shorter messages */
    int received;       /* bytes of the receive that was waited for last */
};

/* Writes "rank 1 in step 12, phase reduce, waits for rank 3 in a tree reduction of X (collective
 * 57)", with `waits` between the phase and the peer. Returns the length like snprintf. */
int nd_situation_describe(char *text, size_t size, const nd_situation *s, const char *waits);

/* "a barrier". */
const char *nd_collective_name(int kind);
