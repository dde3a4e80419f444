/* Read-ahead: a ring of batches that worker threads fill in order and the caller empties in order.
 *
 * Workers take blocks of rows, batch after batch. Batch b is in slot b % slot_count, and a worker
 * starts on it only when the caller has released batch b - slot_count. One mutex guards the
 * counters; reading is done outside it. */
#include "data/loader.h"

#include "core/base/clock.h"
#include "data/sample_order.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_ROWS = 8 };

typedef struct slot {
    int32_t *tokens; /* [count, seq_length + 1] */
    int64_t missing; /* rows not filled yet; guarded by the mutex */
    bool failed;
    nd_error error; /* the first of this batch */
} slot;

struct nd_loader {
    nd_loader_options options;
    int64_t windows, row; /* row = seq_length + 1 tokens */
    int64_t batches_returned;
    slot *slots;
    int slot_count;

    pthread_mutex_t mutex;
    pthread_cond_t work, ready;   /* a slot was freed, or closing; a batch was completed */
    int64_t next_batch, next_row; /* the first row not handed out */
    int64_t released;             /* batches whose slot may be used again */
    bool stop;
    pthread_t *threads;
    int thread_count;
};

static nd_status read_rows(const nd_loader *l, int64_t batch, int64_t row, int64_t rows,
                           int32_t *tokens)
{
    const nd_loader_options *o = &l->options;
    for (int64_t i = row; i < row + rows; i++) {
        const int64_t sample = o->start_sample + batch * o->batch_size + o->first + i;
        const int64_t position = sample % l->windows, epoch = sample / l->windows;
        const int64_t window =
            o->shuffle ? nd_sample_order(o->seed, (uint64_t)epoch, l->windows, position) : position;
        ND_TRY(nd_dataset_read_window(o->dataset, window, tokens + i * l->row));
    }
    return ND_OK;
}

/* Takes the next block of rows. False when the loader is closing. The caller holds the mutex. */
static bool take_block(nd_loader *l, int64_t *batch, int64_t *row, int64_t *rows)
{
    while (!l->stop && l->next_batch >= l->released + l->slot_count)
        pthread_cond_wait(&l->work, &l->mutex);
    if (l->stop)
        return false;
    const int64_t left = l->options.count - l->next_row;
    *batch = l->next_batch;
    *row = l->next_row;
    *rows = left < BLOCK_ROWS ? left : BLOCK_ROWS;
    l->next_row += *rows;
    if (l->next_row == l->options.count) {
        l->next_batch++;
        l->next_row = 0;
    }
    return true;
}

static void *worker_main(void *context)
{
    nd_loader *l = context;
    int64_t batch, row, rows;
    pthread_mutex_lock(&l->mutex);
    while (take_block(l, &batch, &row, &rows)) {
        slot *s = &l->slots[batch % l->slot_count];
        pthread_mutex_unlock(&l->mutex);
        nd_error_clear();
        const nd_status status = read_rows(l, batch, row, rows, s->tokens);
        pthread_mutex_lock(&l->mutex);
        if (status != ND_OK && !s->failed) {
            s->failed = true;
            s->error = *nd_error_get();
        }
        s->missing -= rows;
        if (s->missing == 0)
            pthread_cond_signal(&l->ready);
    }
    pthread_mutex_unlock(&l->mutex);
    return NULL;
}

static nd_status check_options(const nd_loader_options *o)
{
    if (o->batch_size < 1 || o->first < 0 || o->count < 0 || o->first + o->count > o->batch_size ||
        o->start_sample < 0)
        return ND_FAIL(ND_ECONFIG,
                       "samples %lld to %lld of a batch of %lld from sample %lld; expected a part "
                       "of the batch",
                       (long long)o->first, (long long)(o->first + o->count),
                       (long long)o->batch_size, (long long)o->start_sample);
    ND_FAIL_IF(o->async && (o->workers < 1 || o->prefetch_batches < 1), ND_ECONFIG,
               "num_workers is %d and prefetch_batches is %d; the asynchronous loader needs 1 or "
               "more of each",
               o->workers, o->prefetch_batches);
    return ND_OK;
}

static nd_status allocate(nd_loader *l)
{
    const size_t tokens = (size_t)(l->options.count * l->row);
    l->slots = calloc((size_t)l->slot_count, sizeof *l->slots);
    ND_FAIL_IF(!l->slots, ND_ENOMEM, "no memory for the loader");
    for (int i = 0; i < l->slot_count; i++) {
        l->slots[i].missing = l->options.count;
        l->slots[i].tokens = calloc(tokens + 1, sizeof *l->slots[i].tokens);
        ND_FAIL_IF(!l->slots[i].tokens, ND_ENOMEM,
                   "no memory for %d batches of %zu tokens; lower prefetch_batches or the batch",
                   l->slot_count, tokens);
    }
    return ND_OK;
}

static nd_status start_workers(nd_loader *l)
{
    l->threads = calloc((size_t)l->options.workers, sizeof *l->threads);
    ND_FAIL_IF(!l->threads, ND_ENOMEM, "no memory for %d loader threads", l->options.workers);
    while (l->thread_count < l->options.workers) {
        const int reason = pthread_create(&l->threads[l->thread_count], NULL, worker_main, l);
        ND_FAIL_IF(reason != 0, ND_ENOMEM, "cannot start loader thread %d of %d: %s",
                   l->thread_count + 1, l->options.workers, strerror(reason));
        l->thread_count++;
    }
    return ND_OK;
}

static int slots_needed(const nd_loader_options *options)
{
    return options->async ? options->prefetch_batches + 1 : 1;
}

nd_status nd_loader_open(const nd_loader_options *options, nd_loader **loader)
{
    *loader = NULL;
    ND_TRY(check_options(options));
    nd_loader *l = calloc(1, sizeof *l);
    ND_FAIL_IF(!l, ND_ENOMEM, "no memory for the loader");
    l->options = *options;
    l->windows = nd_dataset_window_count(options->dataset);
    l->row = nd_dataset_seq_length(options->dataset) + 1;
    /* The caller holds one batch while prefetch_batches are read ahead. */
    l->slot_count = slots_needed(options);
    pthread_mutex_init(&l->mutex, NULL);
    pthread_cond_init(&l->work, NULL);
    pthread_cond_init(&l->ready, NULL);
    nd_status status = allocate(l);
    if (options->async && options->count > 0)
        ND_IF_OK(start_workers(l));
    ND_RETURN_MADE(status, l, nd_loader_close, loader);
}

void nd_loader_close(nd_loader *loader)
{
    if (!loader)
        return;
    pthread_mutex_lock(&loader->mutex);
    loader->stop = true;
    pthread_cond_broadcast(&loader->work);
    pthread_mutex_unlock(&loader->mutex);
    for (int i = 0; i < loader->thread_count; i++)
        pthread_join(loader->threads[i], NULL);
    pthread_cond_destroy(&loader->ready);
    pthread_cond_destroy(&loader->work);
    pthread_mutex_destroy(&loader->mutex);
    for (int i = 0; loader->slots && i < loader->slot_count; i++)
        free(loader->slots[i].tokens);
    free(loader->slots);
    free(loader->threads);
    free(loader);
}

/* Releases the slot of the previous batch to the workers, then waits for batch `batch`. */
static nd_status wait_for_batch(nd_loader *l, int64_t batch)
{
    slot *s = &l->slots[batch % l->slot_count];
    pthread_mutex_lock(&l->mutex);
    if (batch > l->released) {
        l->slots[l->released % l->slot_count].missing = l->options.count;
        l->released = batch;
        pthread_cond_broadcast(&l->work);
    }
    while (s->missing > 0)
        pthread_cond_wait(&l->ready, &l->mutex);
    const bool failed = s->failed;
    pthread_mutex_unlock(&l->mutex);
    if (!failed)
        return ND_OK;
    nd_error_set(&s->error);
    return s->error.status;
}

nd_status nd_loader_next(nd_loader *loader, const int32_t **tokens, double *wait_ms)
{
    const double start = nd_seconds();
    const int64_t batch = loader->batches_returned;
    slot *s = &loader->slots[batch % loader->slot_count];
    *tokens = NULL;
    if (loader->thread_count > 0)
        ND_TRY(wait_for_batch(loader, batch));
    else
        ND_TRY(read_rows(loader, batch, 0, loader->options.count, s->tokens));
    loader->batches_returned++;
    *tokens = s->tokens;
    if (wait_ms)
        *wait_ms = 1e3 * (nd_seconds() - start);
    return ND_OK;
}

size_t nd_loader_planned_bytes(const nd_loader_options *options, int64_t seq_length)
{
    return (size_t)slots_needed(options) * (size_t)(options->count * (seq_length + 1)) *
           sizeof(int32_t);
}

size_t nd_loader_bytes(const nd_loader *loader)
{
    return (size_t)loader->slot_count * (size_t)(loader->options.count * loader->row) *
           sizeof(int32_t);
}
