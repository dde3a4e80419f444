/* The queue of collectives: whether its thread keeps up with the caller. */
#include "dist/comm_queue.h"
#include "support/support.h"

#include <sched.h>
#include <stdatomic.h>

static nd_comm comm = {.size = 2};
static nd_comm_queue *queue;
static atomic_int begun;    /* jobs */
static atomic_bool may_end; /* the current job */
static atomic_bool ends_when_awaited;

static nd_status run(nd_comm *c, const nd_comm_job *jobs, int64_t count, int64_t *taken)
{
    (void)c, (void)jobs, (void)count;
    *taken = 1;
    atomic_fetch_add(&begun, 1);
    while (atomic_load(&ends_when_awaited) ? nd_comm_queue_keeps_up(queue) : !atomic_load(&may_end))
        sched_yield();
    return ND_OK;
}

static void interrupt(nd_comm *c)
{
    (void)c;
    atomic_store(&may_end, true);
}

static void await_job(int number)
{
    while (atomic_load(&begun) < number)
        sched_yield();
}

Test(comm_queue, keeps_up_until_another_job_or_the_caller_waits)
{
    const nd_comm_worker worker = {.run = run, .interrupt = interrupt};
    const nd_comm_job job = {.kind = ND_COMM_JOB_EXCHANGE};
    cr_assert_eq(nd_comm_queue_create(&comm, &worker, &queue), ND_OK);
    cr_assert_not(nd_comm_queue_keeps_up(queue), "nothing is under way");
    cr_assert_eq(nd_comm_queue_begin(queue, &job), ND_OK);
    await_job(1);
    cr_assert(nd_comm_queue_keeps_up(queue));
    cr_assert_eq(nd_comm_queue_begin(queue, &job), ND_OK);
    cr_assert_not(nd_comm_queue_keeps_up(queue), "a job is queued behind the first");
    atomic_store(&may_end, true);
    cr_assert_eq(nd_comm_queue_finish(queue), ND_OK);
    cr_assert_not(nd_comm_queue_keeps_up(queue));
    /* These jobs end when the caller waits for them: finish hangs if that does not show. */
    atomic_store(&ends_when_awaited, true);
    cr_assert_eq(nd_comm_queue_begin(queue, &job), ND_OK);
    cr_assert_eq(nd_comm_queue_finish(queue), ND_OK);
    cr_assert_eq(nd_comm_queue_begin(queue, &job), ND_OK);
    await_job(4);
    cr_assert(nd_comm_queue_keeps_up(queue), "nobody waits any more");
    cr_assert_eq(nd_comm_queue_finish(queue), ND_OK);
    nd_comm_queue_destroy(queue);
}
