#include "dist/comm_queue.h"

#include "core/base/clock.h"
#include "core/base/grow.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* How long an error waits to be collected, and communication may take to stop. */
static const double error_seconds = 0.5, leave_seconds = 0.2;
static const uint64_t slice_nanoseconds = 100000; /* the least that Linux grants */

/* Queues of this process that have jobs and are not finished. */
static atomic_int busy;

struct nd_comm_queue {
    nd_comm *comm;
    nd_comm_worker worker;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;

    /* Guarded by the lock. */
    nd_comm_job *jobs; /* since the queue was last empty; [done, begun) are pending */
    int64_t begun, done;
    size_t capacity;
    double busy_seconds;
    bool working, closing, reported, awaited;
    bool counted;   /* in `busy` */
    nd_error error; /* of the first failed job; no further job runs after it */
};

static struct timespec in_seconds(double seconds)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    const long nanoseconds = t.tv_nsec + (long)(seconds * 1e9);
    t.tv_sec += nanoseconds / 1000000000;
    t.tv_nsec = nanoseconds % 1000000000;
    return t;
}

/* The caller may be computing while other ranks wait. Holds the lock on entry and exit. */
static void report_error_before_abort(nd_comm_queue *q)
{
    const struct timespec until = in_seconds(error_seconds);
    int waited = 0;
    while (!q->reported && !q->closing && waited == 0)
        waited = pthread_cond_timedwait(&q->changed, &q->lock, &until);
    if (q->reported || q->closing)
        return;
    fprintf(stderr, "nanochat_dist: rank %d: error: %s\n", q->comm->rank, q->error.message);
    fflush(stderr);
    q->worker.abort(q->comm, nd_error_exit_code(q->error.status));
}

static void set_busy(nd_comm_queue *q, bool is)
{
    atomic_fetch_add(&busy, (int)is - (int)q->counted);
    q->counted = is;
}

/* Holds the lock on entry and exit. */
static void run_jobs(nd_comm_queue *q)
{
    const int64_t count = q->begun - q->done;
    int64_t taken = 1;
    nd_comm_job *jobs = malloc((size_t)count * sizeof *jobs);
    const nd_comm_job first = q->jobs[q->done];
    if (jobs)
        memcpy(jobs, q->jobs + q->done, (size_t)count * sizeof *jobs);
    q->working = true;
    pthread_mutex_unlock(&q->lock);
    const double start = nd_seconds();
    const nd_status status = q->worker.run(q->comm, jobs ? jobs : &first, jobs ? count : 1, &taken);
    const double end = nd_seconds();
    free(jobs);
    pthread_mutex_lock(&q->lock);
    q->working = false;
    q->done += taken;
    q->busy_seconds += end - start;
    if (status != ND_OK) {
        q->error = *nd_error_get();
        set_busy(q, false);
    }
    pthread_cond_broadcast(&q->changed);
    if (status != ND_OK)
        report_error_before_abort(q);
}

/* The kernel's sched_attr, which the C library has only lately. */
typedef struct sched_attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
} sched_attributes;

/* The thread works briefly between naps, beside threads that compute. From Linux 6.12 on a thread
 * with short slices gets the core soon after it wakes; older kernels ignore the wish. */
static void ask_for_short_slices(void)
{
    sched_attributes mine = {.size = sizeof mine};
    if (syscall(SYS_sched_getattr, 0, &mine, sizeof mine, 0) != 0 || mine.policy != SCHED_OTHER)
        return;
    mine.runtime = slice_nanoseconds;
    syscall(SYS_sched_setattr, 0, &mine, 0);
}

static void *thread_main(void *context)
{
    nd_comm_queue *q = context;
    ask_for_short_slices();
    pthread_mutex_lock(&q->lock);
    while (!q->closing) {
        if (q->done < q->begun && q->error.status == ND_OK)
            run_jobs(q);
        else
            pthread_cond_wait(&q->changed, &q->lock);
    }
    pthread_mutex_unlock(&q->lock);
    return NULL;
}

nd_status nd_comm_queue_create(nd_comm *comm, const nd_comm_worker *worker, nd_comm_queue **queue)
{
    nd_comm_queue *q = calloc(1, sizeof *q);
    ND_FAIL_IF(!q, ND_ENOMEM, "no memory for the queue of collectives");
    q->comm = comm;
    q->worker = *worker;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    const int refused = pthread_create(&q->thread, NULL, thread_main, q);
    if (refused != 0) {
        pthread_cond_destroy(&q->changed);
        pthread_mutex_destroy(&q->lock);
        free(q);
        return ND_FAIL(ND_EINTERNAL, "rank %d: cannot start the communication thread: %s",
                       comm->rank, strerror(refused));
    }
    *queue = q;
    return ND_OK;
}

void nd_comm_queue_destroy(nd_comm_queue *q)
{
    if (!q)
        return;
    pthread_mutex_lock(&q->lock);
    q->closing = true;
    if (q->working)
        q->worker.interrupt(q->comm);
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->lock);
    pthread_join(q->thread, NULL);
    set_busy(q, false);
    pthread_cond_destroy(&q->changed);
    pthread_mutex_destroy(&q->lock);
    free(q->jobs);
    free(q);
}

/* Passes the thread's error to the caller. Holds the lock. */
static nd_status report(nd_comm_queue *q)
{
    if (q->error.status == ND_OK)
        return ND_OK;
    q->reported = true;
    pthread_cond_broadcast(&q->changed);
    if (nd_error_get()->status == ND_OK)
        nd_error_set(&q->error);
    return q->error.status;
}

static nd_status append(nd_comm_queue *q, const nd_comm_job *job)
{
    ND_TRY(report(q));
    if (!q->counted)
        ND_TRY(nd_comm_queue_none_busy());
    nd_comm_job *jobs = nd_grown(q->jobs, &q->capacity, (size_t)q->begun + 1, sizeof *jobs);
    ND_FAIL_IF(!jobs, ND_ENOMEM, "no memory for a queue of %lld collectives", (long long)q->begun);
    q->jobs = jobs;
    q->jobs[q->begun++] = *job;
    set_busy(q, true);
    pthread_cond_broadcast(&q->changed);
    return ND_OK;
}

nd_status nd_comm_queue_begin(nd_comm_queue *q, const nd_comm_job *job)
{
    pthread_mutex_lock(&q->lock);
    const nd_status status = append(q, job);
    pthread_mutex_unlock(&q->lock);
    return status;
}

nd_status nd_comm_queue_finish(nd_comm_queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->awaited = true;
    while (q->done < q->begun && q->error.status == ND_OK)
        pthread_cond_wait(&q->changed, &q->lock);
    q->awaited = false;
    q->comm->busy_seconds += q->busy_seconds;
    q->busy_seconds = 0.0;
    if (q->done == q->begun) {
        q->begun = q->done = 0;
        set_busy(q, false);
    }
    const nd_status status = report(q);
    pthread_mutex_unlock(&q->lock);
    return status;
}

nd_status nd_comm_queue_none_busy(void)
{
    return ND_CHECK(atomic_load(&busy) == 0, ND_EINTERNAL,
                    "a communicator is used while another one has operations in flight");
}

bool nd_comm_queue_keeps_up(nd_comm_queue *q)
{
    pthread_mutex_lock(&q->lock);
    const bool keeps_up = q->begun - q->done == 1 && !q->awaited;
    pthread_mutex_unlock(&q->lock);
    return keeps_up;
}

void nd_comm_queue_interrupt(nd_comm_queue *q)
{
    const struct timespec until = in_seconds(leave_seconds);
    int waited = 0;
    pthread_mutex_lock(&q->lock);
    q->closing = true;
    if (q->working)
        q->worker.interrupt(q->comm);
    pthread_cond_broadcast(&q->changed);
    while (q->working && waited == 0)
        waited = pthread_cond_timedwait(&q->changed, &q->lock, &until);
    pthread_mutex_unlock(&q->lock);
}
