/* The loader: reads a rank's windows of each step, ahead of time in worker threads.
 *
 * Sample g of the run, counted over the global batches from 0, is window permutation_e(g mod n) of
 * epoch e = g / n, where n is the number of windows and permutation_e a keyed permutation of 0..n-1
 * (sample_order.h). So sample g is the same on any number of ranks, and the loader's whole state is
 * the next g. */
#pragma once

#include "core/base/error.h"
#include "data/dataset.h"

typedef struct nd_loader nd_loader;

typedef struct nd_loader_options {
    const nd_dataset *dataset; /* not owned; outlives the loader */
    uint64_t seed;
    bool shuffle;       /* false: windows in order (evaluation) */
    int64_t batch_size; /* global, in samples */
    int64_t first;      /* this rank's samples of a batch: [first, first + count) */
    int64_t count;
    int64_t start_sample; /* global sample where the run (re)starts */
    bool async;           /* false: read in nd_loader_next itself */
    int workers;          /* threads; async only */
    int prefetch_batches; /* batches read ahead at most; async only */
} nd_loader_options;

/* Starts the worker threads. The caller owns the loader. Errors: ND_ENOMEM, ND_ECONFIG. */
nd_status nd_loader_open(const nd_loader_options *options, nd_loader **loader);

/* Stops and joins the workers. */
void nd_loader_close(nd_loader *loader);

/* The rank's samples of the next batch: tokens [count, seq_length + 1], owned by the loader and
 * valid until the next call. *wait_ms (may be NULL) receives the time spent waiting. Errors: those
 * of nd_dataset_read_window, also from a worker thread. */
nd_status nd_loader_next(nd_loader *loader, const int32_t **tokens, double *wait_ms);

/* Bytes of prefetch buffers, for the memory report: of this loader, and of one with these options
 * and sequences of `seq_length` tokens. */
size_t nd_loader_bytes(const nd_loader *loader);
size_t nd_loader_planned_bytes(const nd_loader_options *options, int64_t seq_length);
