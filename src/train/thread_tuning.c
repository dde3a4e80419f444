#include "train/thread_tuning.h"

#include "core/base/grow.h"

#include <math.h>
#include <string.h>
#include <sys/resource.h>

/* Trials begin at multiples of EVERY, so that ranks do not wait for each other's. Without success
 * they become rarer: a step with one thread instead of two takes twice as long. */
enum { EVERY = 8, PAUSE = 16, PAUSE_FEWER = 512, PAUSE_MORE = 64, TRIAL = 2 };

static const double PREEMPTED = 25.0; /* a second: other work wants the processors */
static const double FASTER = 0.95, SLOWER = 1.1;

int64_t nd_preemptions(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? usage.ru_nivcsw : 0;
}

void nd_thread_tuning_begin(nd_thread_tuning *t, int most, int64_t first)
{
    *t = (nd_thread_tuning){
        .most = most, .threads = most, .reach = 1, .due = first + EVERY, .pause = PAUSE};
}

static double typical(const nd_thread_tuning *t)
{
    double sorted[ND_TUNING_RECENT];
    memcpy(sorted, t->recent, sizeof sorted);
    qsort(sorted, ND_TUNING_RECENT, sizeof *sorted, nd_ascending);
    return sorted[ND_TUNING_RECENT / 2];
}

/* By one of eight threads, by twice as many after each trial without success, at most by half:
 * while other work takes two cores, one thread fewer is no better. */
static int change(nd_thread_tuning *t, int sign)
{
    const int step = (t->threads + 7) / 8 * t->reach, half = (t->threads + 1) / 2;
    const int next = t->threads + sign * (step < half ? step : half);
    t->reach = step < half ? 2 * t->reach : 1;
    return next > t->most ? t->most : next;
}

static void pause_trials(nd_thread_tuning *t, int64_t step, int64_t pause)
{
    t->pause = pause;
    t->due = (step + pause + EVERY - 1) / EVERY * EVERY;
}

static void begin_trial(nd_thread_tuning *t, int threads)
{
    t->before = t->threads;
    t->threads = threads;
    t->tried = 0;
    t->best = INFINITY;
}

static void go_on_with_trial(nd_thread_tuning *t, int64_t step, double seconds)
{
    const double before = typical(t);
    const bool down = t->threads < t->before;
    t->best = fmin(t->best, seconds);
    if (++t->tried < TRIAL && seconds < SLOWER * before)
        return;
    if (t->best < FASTER * before) {
        t->known = 0;
        t->reach = 1;
        pause_trials(t, step, PAUSE);
    } else {
        const int64_t longest = down ? PAUSE_FEWER : PAUSE_MORE, twice = 2 * t->pause;
        t->threads = t->before;
        pause_trials(t, step, twice < longest ? twice : longest);
    }
    t->before = 0;
}

int nd_thread_tuning_next(nd_thread_tuning *t, int64_t step, double seconds, int64_t preemptions)
{
    const bool preempted = (double)preemptions > PREEMPTED * seconds;
    if (t->before) {
        go_on_with_trial(t, step, seconds);
        return t->threads;
    }
    t->recent[t->known++ % ND_TUNING_RECENT] = seconds;
    if (t->known < ND_TUNING_RECENT || step < t->due)
        return t->threads;
    if (preempted && t->threads > 1)
        begin_trial(t, change(t, -1));
    else if (t->threads < t->most)
        begin_trial(t, change(t, 1));
    return t->threads;
}
