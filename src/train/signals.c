#include "train/signals.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Signals belong to the process, and handlers can only access globals. */
static struct {
    bool started;
    atomic_bool expected;
    atomic_llong arrived;
    long long wanted; /* signals that request a stop */
    sigset_t asking, mask_before;
    struct sigaction pipe_before;
} signals = {.wanted = 1};

/* Ends the process as if nothing had blocked or caught the signal. */
static void die_of(int number)
{
    sigset_t one;
    signal(number, SIG_DFL);
    sigemptyset(&one);
    sigaddset(&one, number);
    pthread_sigmask(SIG_UNBLOCK, &one, NULL);
    raise(number);
}

static void handle(int number)
{
    if (atomic_load(&signals.expected))
        atomic_fetch_add(&signals.arrived, 1);
    else
        die_of(number);
}

static void *wait_for_signals(void *context)
{
    (void)context;
    for (int number;;)
        if (sigwait(&signals.asking, &number) == 0)
            handle(number);
    return NULL;
}

static void restore_in_child(void)
{
    pthread_sigmask(SIG_SETMASK, &signals.mask_before, NULL);
    sigaction(SIGPIPE, &signals.pipe_before, NULL);
}

/* If only threads that libraries started earlier (a threaded BLAS) leave a signal unblocked, the
 * kernel would deliver it to one of them and end the process: only then a handler takes it. */
static void choose_signals(void)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGHUP, SIGXCPU};
    struct sigaction before, action = {.sa_handler = handle, .sa_flags = SA_RESTART};
    sigfillset(&action.sa_mask);
    sigemptyset(&signals.asking);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        sigaction(numbers[i], NULL, &before);
        if (numbers[i] == SIGHUP && before.sa_handler == SIG_IGN)
            continue;
        sigaddset(&signals.asking, numbers[i]);
        sigaction(numbers[i], &action, NULL);
    }
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, &signals.pipe_before);
}

nd_status nd_signals_start(void)
{
    pthread_t thread;
    sigset_t all;
    if (signals.started)
        return ND_OK;
#if ND_FAULT_POINTS
    if (getenv("ND_SIGNALS"))
        signals.wanted = atoll(getenv("ND_SIGNALS"));
#endif
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &signals.mask_before);
    choose_signals();
    const int failed = pthread_create(&thread, NULL, wait_for_signals, NULL);
    sigorset(&all, &signals.mask_before, &signals.asking);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    ND_FAIL_IF(failed, ND_EIO, "cannot start the thread that waits for signals: %s",
               strerror(failed));
    pthread_detach(thread);
    pthread_atfork(NULL, NULL, restore_in_child);
    signals.started = true;
    return ND_OK;
}

nd_status nd_signals_expect(void)
{
    ND_TRY(nd_signals_start());
    atomic_store(&signals.expected, true);
    return ND_OK;
}

bool nd_signals_stop_requested(void)
{
    return atomic_load_explicit(&signals.arrived, memory_order_relaxed) >= signals.wanted;
}
