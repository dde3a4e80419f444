/* Signals that ask a run to save and stop: SIGTERM, SIGINT, SIGUSR1, and SIGHUP unless whoever started the
 * program has it ignored, as nohup does.
 *
 * One thread waits for them, and they are blocked in all others: oneDNN's products move the stack pointer
 * into the heap, where a handler would write its frame. */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>

/* Blocks the signals in the calling thread, and so in every thread that it starts from then on, and starts
 * the one that waits for them: call it before libraries start theirs. Until nd_signals_expect a signal
 * ends the process, as it would without this. SIGPIPE is ignored: a closed pipe is an error of the write.
 * Child processes get back what the process was started with. The thread lives until the process ends.
 * A second call does nothing. Errors: ND_EIO when there can be no thread. */
nd_status nd_signals_start(void);

/* The same; from now on a signal only requests a stop. */
nd_status nd_signals_expect(void);

/* Whether one has arrived since. */
bool nd_signals_stop_requested(void);
