/* Waiting for exchanges between GPUs, with the GPU, NCCL and the clock played by a fake. */
#include "nccl_exchanges.h"
#include "support/support.h"

#include <string.h>

/* Exchange n may run from starts[n] on and has ended at ends[n], in seconds of the fake's clock. */
typedef struct fake {
    double now, nap, starts[200], ends[200], trouble_from;
    int given_up;
    nd_nccl_exchanges *exchanges;
} fake;

static fake f;
static nd_comm comm;
static nd_nccl_exchanges e;

/* Which of the exchanges a slot belongs to: the oldest that is not done, or a later one. */
static int64_t exchange_in(int slot)
{
    int64_t n = f.exchanges->done;
    while (n % ND_NCCL_EXCHANGES != slot)
        n++;
    return n;
}

static nd_status reached(void *context, int slot, bool end, bool *passed)
{
    (void)context;
    const int64_t n = exchange_in(slot);
    *passed = f.now >= (end ? f.ends[n] : f.starts[n]);
    return ND_OK;
}

static double seconds(void *context, int slot)
{
    (void)context;
    const int64_t n = exchange_in(slot);
    return f.ends[n] - f.starts[n];
}

static const char *trouble(void *context)
{
    (void)context;
    return f.now >= f.trouble_from ? "remote process exited" : NULL;
}

static void give_up(void *context)
{
    (void)context;
    f.given_up++;
}

static double now(void *context)
{
    (void)context;
    return f.now;
}

static void nap(void *context)
{
    (void)context;
    f.now += f.nap;
}

static void start(void)
{
    f = (fake){.nap = 0.125, .trouble_from = 1e9, .exchanges = &e};
    comm = (nd_comm){.rank = 1, .size = 4, .step = 12, .phase = "reduce", .timeout_seconds = 30.0};
    e = (nd_nccl_exchanges){.comm = &comm,
                            .device = {reached, seconds, trouble, give_up, now, nap, NULL}};
}

TestSuite(exchanges, .init = start);

static void begin(const char *name, double from, double to)
{
    int slot;
    f.starts[e.begun] = from;
    f.ends[e.begun] = to;
    ND_ASSERT_OK(nd_nccl_exchanges_begin(&e, "the reduction of", name, 2, &slot));
    cr_assert_eq(slot, (int)((e.begun - 1) % ND_NCCL_EXCHANGES));
}

Test(exchanges, nobody_waits_for_what_the_computation_does_not_need)
{
    begin("blk.1.attn_q.weight", 0.0, 5.0);
    ND_ASSERT_OK(nd_nccl_exchanges_wait(&e));
    cr_assert(f.now == 0.0 && e.done == 0);
    ND_ASSERT_OK(nd_nccl_exchanges_fence(&e));
    cr_assert(f.now == 0.0 && e.done == 0);
    ND_ASSERT_OK(nd_nccl_exchanges_wait(&e));
    cr_assert(f.now == 5.0 && e.done == 1);
}

Test(exchanges, what_waits_for_the_whole_device_waits_for_all_that_is_begun_under_the_deadline)
{
    begin("a", 0.0, 5.0);
    ND_ASSERT_OK(nd_nccl_exchanges_wait_all(&e));
    cr_assert(f.now == 5.0 && e.done == 1 && e.fenced == 0);
    begin("b", 5.0, 1e9);
    ND_ASSERT_FAILS(nd_nccl_exchanges_wait_all(&e), ND_EPEER, "the reduction of b and 2 more");
    cr_assert(f.now > 35.0 && f.now < 36.0, "%g", f.now);
}

Test(exchanges, time_waited_and_time_at_work_are_counted_and_computation_is_neither)
{
    begin("a", 2.0, 3.0);
    begin("b", 3.0, 4.5);
    ND_ASSERT_OK(nd_nccl_exchanges_fence(&e));
    ND_ASSERT_OK(nd_nccl_exchanges_wait(&e));
    cr_assert(f.now == 4.5 && e.done == 2);
    cr_assert(comm.busy_seconds == 2.5, "%g", comm.busy_seconds);
    /* From when the first could run on; a nap is not known to begin or end with it. */
    cr_assert(comm.wait_seconds > 2.0 && comm.wait_seconds <= 2.5, "%g", comm.wait_seconds);
}

Test(exchanges, a_rank_that_does_not_take_part_is_given_up_after_the_deadline)
{
    begin("blk.3.attn_q.weight", 100.0, 1e9);
    comm.phase = "norms";
    ND_ASSERT_OK(nd_nccl_exchanges_fence(&e));
    ND_ASSERT_FAILS(nd_nccl_exchanges_wait(&e), ND_EPEER,
                    "rank 1 of 4 in step 12, phase norms: the reduction of blk.3.attn_q.weight and "
                    "2 more, begun in step 12, phase reduce: not done after 30 s; another rank is "
                    "dead");
    cr_assert(f.now > 130.0 && f.now < 131.0, "%g", f.now);
    cr_assert_eq(f.given_up, 1);
    nd_error_clear();
    int slot;
    ND_ASSERT_FAILS(nd_nccl_exchanges_begin(&e, "x", NULL, 0, &slot), ND_EPEER,
                    "NCCL failed before");
    cr_assert_eq(f.given_up, 1);
}

Test(exchanges, every_exchange_has_the_whole_deadline)
{
    for (int i = 0; i < 4; i++)
        begin("a", 20.0 * i, 20.0 * (i + 1));
    ND_ASSERT_OK(nd_nccl_exchanges_fence(&e));
    ND_ASSERT_OK(nd_nccl_exchanges_wait(&e));
    cr_assert_eq(e.done, 4);
}

Test(exchanges, time_in_which_this_process_was_stopped_is_not_held_against_others)
{
    begin("a", 0.0, 1000.0);
    f.nap = 100.0;
    ND_ASSERT_OK(nd_nccl_exchanges_fence(&e));
    ND_ASSERT_OK(nd_nccl_exchanges_wait(&e));
    cr_assert_eq(e.done, 1);
}

Test(exchanges, what_nccl_finds_wrong_ends_a_wait_at_once)
{
    begin("a", 0.0, 1e9);
    f.trouble_from = 3.0;
    ND_ASSERT_OK(nd_nccl_exchanges_fence(&e));
    ND_ASSERT_FAILS(nd_nccl_exchanges_wait(&e), ND_EPEER, "remote process exited");
    cr_assert(f.now == 3.0 && f.given_up == 1);
}

Test(exchanges, a_fence_hears_of_trouble_without_waiting)
{
    begin("a", 0.0, 1e9);
    f.trouble_from = 0.0;
    ND_ASSERT_FAILS(nd_nccl_exchanges_fence(&e), ND_EPEER, "remote process exited");
    cr_assert_eq(f.given_up, 1);
}

Test(exchanges, more_than_there_are_slots_wait_for_the_oldest)
{
    for (int i = 0; i < ND_NCCL_EXCHANGES; i++)
        begin("a", i, i + 1);
    cr_assert(f.now == 0.0);
    begin("b", 70.0, 71.0);
    cr_assert(f.now == 1.0 && e.done == 1, "%g", f.now);
    ND_ASSERT_OK(nd_nccl_exchanges_fence(&e));
    ND_ASSERT_OK(nd_nccl_exchanges_wait(&e));
    cr_assert(f.now == 71.0 && e.done == ND_NCCL_EXCHANGES + 1);
}
