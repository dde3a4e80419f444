/* A thread that executes collectives in the order in which they were queued, while the thread that queued
 * them computes. It is started with the first one.
 *
 * Only one thread may communicate at a time: call nd_comm_queue_finish before communicating from another
 * thread. All ranks queue the same collectives in the same order. */
#pragma once

#include "dist/comm.h"

/* One collective. The memory it names belongs to the queue until nd_comm_queue_finish. */
typedef struct nd_comm_job {
    enum { ND_COMM_JOB_REDUCTION, ND_COMM_JOB_BROADCAST, ND_COMM_JOB_EXCHANGE } kind;
    nd_comm_split split; /* of a reduction */
    nd_comm_piece *pieces;
    int64_t count;
    void *data; /* of a broadcast */
    size_t bytes;
    int root;
    nd_comm_exchange exchange;
    int64_t step; /* where in the run it was begun */
    const char *phase;
} nd_comm_job;

/* What the thread calls. */
typedef struct nd_comm_worker {
    /* The first *taken of these `count` jobs, which wait to be done; at least one, and the same on all ranks. */
    nd_status (*run)(nd_comm *comm, const nd_comm_job *jobs, int64_t count, int64_t *taken);
    /* Makes a job that is under way in the thread fail soon. Called by another thread. */
    void (*interrupt)(nd_comm *comm);
    /* Ends the whole job of all ranks. */
    void (*abort)(nd_comm *comm, int exit_code);
} nd_comm_worker;

typedef struct nd_comm_queue nd_comm_queue;

/* Not collective. Errors: ND_ENOMEM, ND_EINTERNAL when the system gives no thread. */
nd_status nd_comm_queue_create(nd_comm *comm, const nd_comm_worker *worker, nd_comm_queue **queue);

/* Interrupts the current collective and joins the thread; NULL is allowed. */
void nd_comm_queue_destroy(nd_comm_queue *queue);

/* Returns at once. Errors: those of an earlier job, as the thread raised them. When the
 * caller, busy computing, has not collected an error after half a second, the thread prints it and ends
 * the job. */
nd_status nd_comm_queue_begin(nd_comm_queue *queue, const nd_comm_job *job);

/* Waits until everything begun is done, and adds the time that took the thread to
 * comm->busy_seconds. Errors: those of a job. */
nd_status nd_comm_queue_finish(nd_comm_queue *queue);

/* Interrupts the current collective and waits briefly for the thread to stop communicating. */
void nd_comm_queue_interrupt(nd_comm_queue *queue);
