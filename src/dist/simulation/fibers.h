/* Fibers on virtual clocks: functions that take turns in one thread. The fiber with the earliest
 * clock runs until it waits for a later time, so that interactions happen in the order of time and
 * a run is deterministic. Each fiber has an error of its own (core/base/error.h). */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>

typedef struct nd_fibers nd_fibers;

/* Prepares `main` to run once in each of fibers 0..count-1 (count: 1 or more), on a stack of
 * 256 KiB. The caller destroys the result. Errors: ND_ENOMEM. */
nd_status nd_fibers_create(int count, void (*main)(void *context, int fiber), void *context,
                           nd_fibers **fibers);
void nd_fibers_destroy(nd_fibers *fibers);

/* Runs all fibers until they have returned. */
void nd_fibers_run(nd_fibers *fibers);

/* The functions below are called by fibers. Returns the clock of the running one, in seconds. */
double nd_fibers_now(const nd_fibers *fibers);

/* Suspends the running fiber until its clock shows `time`; returns at once when that has passed. */
void nd_fibers_sleep(nd_fibers *fibers, double time);

/* Suspends the running fiber until another calls nd_fibers_wake. Returns false on a deadlock: no
 * fiber could continue, and all blocked ones were resumed. */
bool nd_fibers_block(nd_fibers *fibers);

/* Resumes a blocked fiber when its clock shows `time`. */
void nd_fibers_wake(nd_fibers *fibers, int fiber, double time);
