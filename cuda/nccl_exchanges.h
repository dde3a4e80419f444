/* The exchanges that are enqueued for NCCL and not known to be finished.
 *
 * A GPU does not say that a rank is gone: NCCL's kernel waits for it without end, and so would a
 * host that waits for the stream. So the host comes here first, before it waits for anything that
 * exchanges must precede: it polls, with the comm's deadline, and aborts NCCL's communicator when
 * it is over. Over a table of functions, so that it is tested without a GPU. */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

#include "dist/comm.h"

/* The most exchanges in flight; beginning another waits for the oldest. */
enum { ND_NCCL_EXCHANGES = 64 };

/* Exchanges run one after another on a stream of their own. In each slot one event precedes an
 * exchange and follows the computation that it needs, and one follows the exchange. */
typedef struct nd_nccl_device {
    nd_status (*reached)(void *context, int slot, bool end, bool *passed);
    double (*seconds)(void *context, int slot); /* between the two events, both passed */
    const char *(*trouble)(void *context);      /* an error that NCCL found, or NULL */
    void (*give_up)(void *context);             /* aborts the exchanges in flight */
    double (*now)(void *context);               /* seconds */
    void (*nap)(void *context);
    void *context;
} nd_nccl_device;

typedef struct nd_nccl_exchange {
    const char *what;  /* "the reduction of" */
    const char *first; /* name of the first tensor; may be NULL */
    int64_t more;      /* tensors after it */
    int64_t step;      /* where in the run it was begun */
    const char *phase;
} nd_nccl_exchange;

typedef struct nd_nccl_exchanges {
    nd_comm *comm; /* for its rank, step, phase, deadline, and its counts of seconds */
    nd_nccl_device device;
    nd_nccl_exchange list[ND_NCCL_EXCHANGES]; /* exchange n in slot n % ND_NCCL_EXCHANGES */
    int64_t begun, done;
    int64_t fenced; /* of those begun: the stream of computation waits for them */
    bool failed;    /* from then on every function fails */
} nd_nccl_exchanges;

/* The caller then enqueues it between the events of *slot. Errors: those of an earlier one,
 * ND_EPEER. */
nd_status nd_nccl_exchanges_begin(nd_nccl_exchanges *e, const char *what, const char *first,
                                  int64_t more, int *slot);

/* What the computation will wait for: everything begun so far. Books what is done,
 * without waiting. */
nd_status nd_nccl_exchanges_fence(nd_nccl_exchanges *e);

/* Returns when all that is fenced is done. Only the time in which an exchange could run counts
 * towards the deadline and comm->wait_seconds, not this rank's own computation. Errors: ND_EPEER
 * naming this rank, where it is, what it waits for and where that was begun. */
nd_status nd_nccl_exchanges_wait(nd_nccl_exchanges *e);

/* The same for everything begun, fenced or not: before a call that waits for the whole device, as
 * freeing its memory does. */
nd_status nd_nccl_exchanges_wait_all(nd_nccl_exchanges *e);

/* Fails from here on; `reason` in words. Returns ND_EPEER. */
nd_status nd_nccl_exchanges_fail(nd_nccl_exchanges *e, const char *what, const char *reason);

#ifdef __cplusplus
}
#endif
