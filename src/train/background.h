/* A background task on its own thread: at most one at a time per nd_background; its status and error are
 * kept for the thread that waits for it. It must not call MPI. */
#pragma once

#include "core/base/error.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

/* Zeroed memory is one without a task. */
typedef struct nd_background {
    nd_status (*work)(void *context);
    void *context;
    bool threaded; /* there is a thread to join */
    pthread_t thread;
    atomic_bool done;
    nd_error error; /* of the work; status ND_OK when it succeeded */
} nd_background;

/* Starts the work on a thread; runs it at once when `threaded` is false or no thread can be started. */
void nd_background_start(nd_background *b, nd_status (*work)(void *context), void *context,
                         bool threaded);

/* Whether the work, if any, has ended. */
bool nd_background_done(nd_background *b);

/* Waits for the end of the work and returns its status, with its error as the calling thread's. ND_OK
 * when there was none. */
nd_status nd_background_wait(nd_background *b);
