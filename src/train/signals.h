/* Signals that ask a run to save and stop: SIGTERM, SIGINT, SIGUSR1, and SIGHUP unless nohup had it ignored.
 * SIGPIPE is ignored. */
#ifndef ND_TRAIN_SIGNALS_H
#define ND_TRAIN_SIGNALS_H

#include <stdbool.h>

/* Installs the handlers. They only set a flag; the step loop looks at it. */
void nd_signals_install(void);

/* Whether one has arrived since. */
bool nd_signals_stop_requested(void);

#endif
