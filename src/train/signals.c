#include "train/signals.h"

#include <signal.h>
#include <string.h>

/* A handler can reach nothing but a global. */
static volatile sig_atomic_t stop_requested;

static void request_stop(int number)
{
    (void)number;
    stop_requested = 1;
}

void nd_signals_install(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = request_stop;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    struct sigaction before;
    if (sigaction(SIGHUP, NULL, &before) == 0 && before.sa_handler != SIG_IGN) /* not under nohup */
        sigaction(SIGHUP, &action, NULL);
    action.sa_handler = SIG_IGN; /* a log that nobody reads is no reason to stop */
    sigaction(SIGPIPE, &action, NULL);
}

bool nd_signals_stop_requested(void)
{
    return stop_requested != 0;
}
