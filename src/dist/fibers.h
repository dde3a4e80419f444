/* Fibers on virtual clocks: many functions that take turns in one thread. The one whose clock shows the earliest
 * time runs until it waits for a later one; so what fibers do to each other happens in the order of time, and a
 * run is the same every time. Each has an error of its own (core/base/error.h). */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>

typedef struct nd_fibers nd_fibers;

/* `main` runs once in each of fibers 0..count-1, on a stack of 256 KiB. Errors: ND_ENOMEM. */
nd_status nd_fibers_create(int count, void (*main)(void *context, int fiber), void *context,
                           nd_fibers **fibers);
void nd_fibers_destroy(nd_fibers *fibers);

/* Until all have returned. */
void nd_fibers_run(nd_fibers *fibers);

/* The rest is called by fibers. The clock of the one that runs: */
double nd_fibers_now(const nd_fibers *fibers);

/* Goes on when the clock shows `time`; at once where that has passed. */
void nd_fibers_sleep(nd_fibers *fibers, double time);

/* Goes on when another has called nd_fibers_wake. False: no fiber could go on any more, so all that were blocked
 * do, with this answer. */
bool nd_fibers_block(nd_fibers *fibers);

/* A blocked fiber goes on when its clock shows `time`. */
void nd_fibers_wake(nd_fibers *fibers, int fiber, double time);
