/* Updates wait for what a save in progress still has to write. */
#include "train/checkpoint/checkpoint_wait.h"

#include "core/base/clock.h"
#include "train/checkpoint/checkpoint_parts.h"

void nd_save_release(nd_save *s, int64_t written)
{
    pthread_mutex_lock(&s->mutex);
    s->written = written;
    pthread_cond_signal(&s->progressed);
    pthread_mutex_unlock(&s->mutex);
}

static void wait_written(nd_run *run, nd_save *s, int64_t index)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->mutex);
    if (s->written <= index) {
        const double start = nd_seconds();
        while (s->written <= index)
            pthread_cond_wait(&s->progressed, &s->mutex);
        run->saving.ms += 1e3 * (nd_seconds() - start);
    }
    pthread_mutex_unlock(&s->mutex);
}

void nd_save_wait_written(nd_run *run, int64_t index)
{
    if (run->saving.worker_of) /* which saves its workers' state */
        run = run->saving.worker_of;
    wait_written(run, run->saving.save, index);
    wait_written(run, run->saving.snapshot, index);
}
