#include "train/background.h"

/* Errors are per thread, and the caller may hold an older one. */
static void run_here(nd_background *b)
{
    const nd_error before = *nd_error_get();
    nd_error_clear();
    const nd_status status = b->work(b->context);
    b->error = *nd_error_get();
    b->error.status = status;
    nd_error_set(&before);
    atomic_store_explicit(&b->done, true, memory_order_release);
}

static void *run_on_thread(void *context)
{
    run_here(context);
    return NULL;
}

void nd_background_start(nd_background *b, nd_status (*work)(void *context), void *context,
                         bool threaded)
{
    b->work = work;
    b->context = context;
    b->error.status = ND_OK;
    atomic_store(&b->done, false);
    b->threaded = threaded && pthread_create(&b->thread, NULL, run_on_thread, b) == 0;
    if (!b->threaded)
        run_here(b);
}

bool nd_background_done(nd_background *b)
{
    return !b->work || atomic_load_explicit(&b->done, memory_order_acquire);
}

nd_status nd_background_wait(nd_background *b)
{
    if (b->threaded)
        pthread_join(b->thread, NULL);
    b->threaded = false;
    if (!b->work)
        return ND_OK;
    b->work = NULL;
    if (b->error.status != ND_OK)
        nd_error_set(&b->error);
    return b->error.status;
}
