/* The number of threads that is chosen on described machines. That ops have the same bits while it
 * changes is in the suites of tests/core/conformance.h. */
#include "support/support.h"
#include "train/thread_tuning.h"

#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* Seconds of a step, and preemptions, by number of threads. */
typedef struct machine {
    double seconds[9];
    int64_t preemptions[9];
} machine;

static const machine quiet = {.seconds = {0.0, 0.40, 0.21}};
/* Two cores, of which other work wants one: both threads wait for the one that shares it. */
static const machine shared = {.seconds = {0.0, 0.42, 0.86}, .preemptions = {0, 0, 150}};
/* A thread that exchanges messages preempts one that computes, for moments. */
static const machine nudged = {.seconds = {0.0, 0.40, 0.22}, .preemptions = {0, 5, 90}};

typedef struct outcome {
    int last;        /* threads in the end */
    int64_t with[9]; /* steps with each number */
} outcome;

static outcome run_steps(nd_thread_tuning *t, const machine *m, int64_t first, int64_t count)
{
    outcome o = {0};
    for (int64_t step = first; step < first + count; step++) {
        const int threads = t->threads;
        o.with[threads]++;
        o.last = nd_thread_tuning_next(t, step + 1, m->seconds[threads], m->preemptions[threads]);
        cr_assert(o.last == t->threads && o.last >= 1 && o.last <= t->most);
    }
    return o;
}

Test(thread_tuning, keeps_all_threads_on_a_quiet_machine)
{
    nd_thread_tuning t;
    nd_thread_tuning_begin(&t, 2, 0);
    cr_assert_eq(run_steps(&t, &quiet, 0, 2000).with[2], 2000);
}

Test(thread_tuning, takes_fewer_beside_other_work_and_all_again_after_it)
{
    nd_thread_tuning t;
    nd_thread_tuning_begin(&t, 2, 100);
    const outcome beside = run_steps(&t, &shared, 100, 1000);
    cr_assert_lt(beside.with[2], 8 + 1 + 1000 / 16, "of 1000 steps %lld with both threads",
                 (long long)beside.with[2]);
    run_steps(&t, &quiet, 1100, 80);
    cr_assert_eq(run_steps(&t, &quiet, 1180, 500).with[2], 500);
}

Test(thread_tuning, tries_seldom_what_does_not_help)
{
    nd_thread_tuning t;
    nd_thread_tuning_begin(&t, 2, 0);
    const outcome o = run_steps(&t, &nudged, 0, 10000);
    cr_assert(o.with[1] > 0 && o.with[1] < 30, "%lld of 10000 steps with one thread",
              (long long)o.with[1]);
}

Test(thread_tuning, finds_the_number_among_many)
{
    machine m = {.seconds = {0.0}};
    for (int n = 1; n <= 8; n++) { /* eight cores, two of them taken */
        m.seconds[n] = n <= 6 ? 1.2 / n : 1.2 / n * 2.0;
        m.preemptions[n] = n <= 6 ? 0 : 400;
    }
    nd_thread_tuning t;
    nd_thread_tuning_begin(&t, 8, 0);
    run_steps(&t, &m, 0, 100);
    const outcome o = run_steps(&t, &m, 100, 1000);
    cr_assert_geq(o.with[6], 900, "%lld of 1000 steps with six of eight", (long long)o.with[6]);
}

/* Two processes that want the same processor take turns. */
Test(thread_tuning, preemptions_of_this_process_are_counted)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    cr_assert_eq(sched_setaffinity(0, sizeof one, &one), 0);
    const pid_t other = fork();
    if (other == 0)
        alarm(60);
    while (other == 0)
        ;
    const int64_t before = nd_preemptions();
    for (volatile int64_t i = 0; nd_preemptions() < before + 3 && i < (int64_t)1 << 26; i++)
        ;
    kill(other, SIGKILL);
    waitpid(other, NULL, 0);
    cr_assert_geq(nd_preemptions(), before + 3);
}
