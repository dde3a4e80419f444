/* The exchanges that are enqueued with NCCL and not known to be finished.
 *
 * A GPU does not notice that a rank is gone: NCCL's kernel waits for it without end, and so would a
 * host that waits for the stream. So before the host waits for anything that follows exchanges, it
 * polls those here, with the comm's timeout, and aborts NCCL's communicator when that is exceeded.
 * What it needs of the device is a table of functions, so that this can be tested without a GPU. */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

#include "dist/comm.h"

/* The most exchanges in flight; beginning another waits for the oldest. */
enum { ND_NCCL_EXCHANGES = 64 };

/* What is needed of the device. Exchanges run one after another. Each has a slot with two events:
 * the start, after the computation that the exchange needs, and the end, after the exchange. */
typedef struct nd_nccl_device {
    nd_status (*reached)(void *context, int slot, bool end, bool *passed);
    double (*seconds)(void *context, int slot); /* between start and end, both reached */
    const char *(*trouble)(void *context);      /* an error that NCCL has found, or NULL */
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
    nd_comm *comm; /* for its rank, step, phase and timeout; its seconds are counted */
    nd_nccl_device device;
    nd_nccl_exchange list[ND_NCCL_EXCHANGES]; /* exchange n in slot n % ND_NCCL_EXCHANGES */
    int64_t begun, done;
    int64_t fenced; /* of those begun: the compute stream waits for them */
    bool failed;    /* from then on every function fails */
} nd_nccl_exchanges;

/* Begins an exchange, which the caller then enqueues between the events of *slot. The texts are not
 * copied. Errors: ND_EPEER, also of an earlier exchange. */
nd_status nd_nccl_exchanges_begin(nd_nccl_exchanges *e, const char *what, const char *first,
                                  int64_t more, int *slot);

/* Everything begun so far is fenced: the compute stream waits for it. Counts what is done, without
 * waiting. Errors: ND_EPEER. */
nd_status nd_nccl_exchanges_fence(nd_nccl_exchanges *e);

/* Waits until all that is fenced is done. Only time in which an exchange could run counts towards
 * the timeout and comm->wait_seconds, not this rank's own computation. Errors: ND_EPEER naming this
 * rank, where it is, what it waits for and where that was begun. */
nd_status nd_nccl_exchanges_wait(nd_nccl_exchanges *e);

/* Waits likewise for everything begun, fenced or not: before a call that waits for the whole
 * device, as freeing its memory does. */
nd_status nd_nccl_exchanges_wait_all(nd_nccl_exchanges *e);

/* Aborts what is in flight and makes all later calls fail. Returns ND_EPEER naming `what` and
 * `reason`. */
nd_status nd_nccl_exchanges_fail(nd_nccl_exchanges *e, const char *what, const char *reason);

#ifdef __cplusplus
}
#endif
