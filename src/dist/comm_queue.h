/* A thread that works off collectives one after another, in the order in which they were begun, while
 * the thread that began them computes. It exists from the first that is begun on.
 *
 * Exactly one thread may be inside the wire: whoever began something calls nd_comm_queue_finish before
 * it works on the wire itself. All ranks begin the same collectives in the same order. */
#ifndef ND_DIST_COMM_QUEUE_H
#define ND_DIST_COMM_QUEUE_H

#include "dist/comm.h"

/* A collective of its own. The memory it names belongs to the queue until nd_comm_queue_finish. */
typedef struct nd_comm_job {
    enum { ND_COMM_JOB_REDUCTION, ND_COMM_JOB_BROADCAST } kind;
    nd_comm_split split; /* of a reduction */
    nd_comm_piece *pieces;
    int64_t count;
    void *data; /* of a broadcast */
    size_t bytes;
    int root;
    int64_t step; /* where in the run it was begun */
    const char *phase;
} nd_comm_job;

/* What the thread calls. */
typedef struct nd_comm_worker {
    nd_status (*run)(nd_comm *comm, const nd_comm_job *job);
    /* Makes a job that is under way in the thread fail soon. Called by another thread. */
    void (*interrupt)(nd_comm *comm);
    /* Ends the whole job of all ranks. */
    void (*abort)(nd_comm *comm, int exit_code);
} nd_comm_worker;

typedef struct nd_comm_queue nd_comm_queue;

/* Not collective. Errors: ND_ENOMEM, ND_EINTERNAL when the system gives no thread. */
nd_status nd_comm_queue_create(nd_comm *comm, const nd_comm_worker *worker, nd_comm_queue **queue);

/* Interrupts what is under way and joins the thread; NULL is allowed. */
void nd_comm_queue_destroy(nd_comm_queue *queue);

/* Returns at once. Errors: those of an earlier job, as the thread raised them. When nobody has come for
 * such an error after half a second, because the caller computes, the thread prints it and ends the
 * job. */
nd_status nd_comm_queue_begin(nd_comm_queue *queue, const nd_comm_job *job);

/* Waits until everything begun is done, and adds the time that took the thread to
 * comm->busy_seconds. Errors: those of a job. */
nd_status nd_comm_queue_finish(nd_comm_queue *queue);

/* Interrupts what is under way and waits a moment for the thread to leave the wire. */
void nd_comm_queue_interrupt(nd_comm_queue *queue);

#endif
