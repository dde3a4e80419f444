/* A background task on its own thread, at most one per nd_background. Its status and error are kept
 * for the thread that waits for it. It must not call MPI. */
#pragma once

#include "core/base/error.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

/* Zero-initialized: no task. */
typedef struct nd_background {
    nd_status (*work)(void *context);
    void *context;
    bool threaded; /* a thread must be joined */
    pthread_t thread;
    atomic_bool done;
    nd_error error; /* of the task; status ND_OK when it succeeded */
} nd_background;

/* Starts the task. If `threaded` is false or no thread can be created, the task runs before this
 * returns. */
void nd_background_start(nd_background *b, nd_status (*work)(void *context), void *context,
                         bool threaded);

/* Whether the task, if any, has ended. */
bool nd_background_done(nd_background *b);

/* Waits for the task; returns its status and makes its error the caller's. ND_OK without a task. */
nd_status nd_background_wait(nd_background *b);
