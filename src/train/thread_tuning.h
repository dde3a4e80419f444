/* How many threads a rank computes with on a machine that does other work too.
 *
 * Every operation ends when the last of its threads does, so one thread that the system has
 * preempted keeps all others waiting; one thread fewer may then be faster. While threads are
 * preempted, a step or two is tried with fewer, now and then one with more, and what is faster is
 * kept. Results have the same bits with any number. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { ND_TUNING_RECENT = 5 };

typedef struct nd_thread_tuning {
    int most, threads;               /* those of the backend, and those in use */
    int before;                      /* in use before the trial that is going on; 0: none is */
    int tried;                       /* steps of the trial so far */
    int reach;                       /* how far the next trial goes, in eighths */
    double best;                     /* the shortest of these, seconds */
    int64_t due;                     /* step after which the next trial begins */
    int64_t pause;                   /* steps between trials */
    int64_t known;                   /* steps with `threads` */
    double recent[ND_TUNING_RECENT]; /* seconds of the last of these */
} nd_thread_tuning;

/* For a backend of `most` threads, all of them in use, before step `first`. */
void nd_thread_tuning_begin(nd_thread_tuning *t, int most, int64_t first);

/* After step number `step`, which computed for `seconds` while the system preempted threads
 * `preemptions` times: returns the number of threads for the next step, also t->threads. */
int nd_thread_tuning_next(nd_thread_tuning *t, int64_t step, double seconds, int64_t preemptions);

/* How often the system has preempted a thread of this process so far. */
int64_t nd_preemptions(void);
