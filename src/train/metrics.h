/* What a run measures, a step at a time: metrics.jsonl and TensorBoard. Rank 0 only. */
#pragma once

#include "train/evaluate.h"
#include "train/run.h"
#include "train/step.h"
#include "train/tensorboard.h"

typedef struct nd_metrics {
    bool opened;                 /* and these are in use */
    int jsonl;                   /* a file, < 0 where it cannot be opened */
    nd_tensorboard *tensorboard; /* NULL when switched off, or where it cannot be written */
    int64_t missing;             /* consecutive steps that could not be written */
} nd_metrics;

/* Opens RUN/metrics.jsonl and the event file. Steps beyond `run->restored.step`, left by a run that was cut
 * off after its last checkpoint, are removed from metrics.jsonl first. Training continues without what cannot
 * be written, and the log says so once. */
void nd_metrics_open(nd_run *run, nd_metrics *metrics);
void nd_metrics_close(nd_metrics *metrics);

/* One object for the step just completed, whole or not at all; `evaluation` is NULL where there was none. A
 * full disk is a warning, and the next step is tried again. */
nd_status nd_metrics_write(nd_metrics *metrics, nd_run *run, const nd_step_result *step,
                           const nd_evaluation *evaluation, double tokens_per_second,
                           int64_t last_step);
