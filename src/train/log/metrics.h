/* Per-step measurements: metrics.jsonl and TensorBoard. Rank 0 only. */
#pragma once

#include "train/evaluate.h"
#include "train/log/tensorboard.h"
#include "train/run/run.h"
#include "train/step.h"

typedef struct nd_metrics {
    bool opened;                 /* the fields below are in use */
    int jsonl;                   /* file descriptor, < 0 where the file cannot be opened */
    nd_tensorboard *tensorboard; /* NULL when disabled or not writable */
    int64_t missing;             /* consecutive steps that could not be written */
} nd_metrics;

/* Opens RUN/metrics.jsonl and the event file. First removes from metrics.jsonl the steps after
 * run->restored.step, written by a run that ended after its last checkpoint; a run that resumed
 * nothing empties it. Training continues without files that cannot be written, and the log says so
 * once. */
void nd_metrics_open(nd_run *run, nd_metrics *metrics);
void nd_metrics_close(nd_metrics *metrics);

/* Writes one object for the step just completed, whole or not at all; `evaluation` is NULL where
 * there was none. A full disk or memory is a warning, and the next step tries again. */
void nd_metrics_write(nd_metrics *metrics, nd_run *run, const nd_step_result *step,
                      const nd_evaluation *evaluation, double tokens_per_second, int64_t last_step);
