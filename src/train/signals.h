/* Signals that make a run save and stop: SIGTERM, SIGINT, SIGUSR1, and SIGHUP unless it was ignored
 * when the program started, as with nohup.
 *
 * One thread waits for them, and all others block them: oneDNN's products move the stack pointer
 * into the heap, where a signal handler would write its frame. */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>

/* Blocks the signals in the calling thread, and so in all threads it creates later, and starts the
 * thread that waits for them. Call it before libraries start threads. Until nd_signals_expect a
 * signal ends the process as usual. Ignores SIGPIPE, so that a closed pipe is a write error. Child
 * processes get the signal settings that the process was started with. The thread lives until the
 * process ends; further calls do nothing. Errors: ND_EIO when no thread can be created. */
nd_status nd_signals_start(void);

/* Calls nd_signals_start; from now on a signal only requests a stop. */
nd_status nd_signals_expect(void);

/* Whether a signal has arrived since. */
bool nd_signals_stop_requested(void);
