/* A thread that executes queued collectives, in their order, while the calling thread computes. It
 * is started by the first one.
 *
 * Only one thread of a process may communicate at a time: call nd_comm_queue_finish before
 * communicating from another thread, also by another comm. All ranks queue the same collectives in
 * the same order. */
#pragma once

#include "dist/comm.h"

/* One collective. The memory it names belongs to the queue until nd_comm_queue_finish. */
typedef struct nd_comm_job {
    enum {
        ND_COMM_JOB_REDUCTION,
        ND_COMM_JOB_BROADCAST,
        ND_COMM_JOB_BROADCAST_EACH,
        ND_COMM_JOB_EXCHANGE
    } kind;
    nd_comm_split split; /* of a reduction */
    nd_comm_piece *pieces;
    int64_t count;
    void *data; /* of a broadcast */
    size_t bytes;
    int root;
    void *const *buffers; /* of broadcasts of each */
    const size_t *sizes;
    nd_comm_exchange exchange;
    int64_t step; /* the position in the run when it was queued */
    const char *phase;
} nd_comm_job;

/* Callbacks of the thread. */
typedef struct nd_comm_worker {
    /* Runs the first *taken of these `count` queued jobs, at least one; the same on all ranks. */
    nd_status (*run)(nd_comm *comm, const nd_comm_job *jobs, int64_t count, int64_t *taken);
    /* Makes the job that the thread is running fail soon. Called from another thread. */
    void (*interrupt)(nd_comm *comm);
    /* Terminates the job of all ranks. */
    void (*abort)(nd_comm *comm, int exit_code);
} nd_comm_worker;

typedef struct nd_comm_queue nd_comm_queue;

/* Not collective. The caller destroys the queue. Errors: ND_ENOMEM, ND_EINTERNAL (no thread). */
nd_status nd_comm_queue_create(nd_comm *comm, const nd_comm_worker *worker, nd_comm_queue **queue);

/* Interrupts the current collective and joins the thread. NULL is allowed. */
void nd_comm_queue_destroy(nd_comm_queue *queue);

/* Queues a collective and returns at once. Errors: ND_EINTERNAL where another queue is not
 * finished; those of an earlier job, as the thread raised them. If the caller does not collect an
 * error within half a second, the thread prints it and terminates the job. */
nd_status nd_comm_queue_begin(nd_comm_queue *queue, const nd_comm_job *job);

/* Waits until all queued collectives are complete and adds the time they took to
 * comm->busy_seconds. Errors: those of a job. */
nd_status nd_comm_queue_finish(nd_comm_queue *queue);

/* Errors: ND_EINTERNAL where a queue of this process is not finished. */
nd_status nd_comm_queue_none_busy(void);

/* Whether the thread keeps up with the caller, who computes: it is running the only job, and nobody
 * waits for that. Any thread may call this. */
bool nd_comm_queue_keeps_up(nd_comm_queue *queue);

/* Interrupts the current collective and waits briefly for the thread to stop communicating. */
void nd_comm_queue_interrupt(nd_comm_queue *queue);
