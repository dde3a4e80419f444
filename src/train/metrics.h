/* What a run measures, a step at a time: metrics.jsonl and TensorBoard. Rank 0 only. */
#ifndef ND_TRAIN_METRICS_H
#define ND_TRAIN_METRICS_H

#include "train/evaluate.h"
#include "train/run.h"
#include "train/step.h"
#include "train/tensorboard.h"

typedef struct nd_metrics {
    FILE *jsonl;
    nd_tensorboard *tensorboard; /* NULL when switched off */
} nd_metrics;

/* Opens RUN/metrics.jsonl and the event file. Steps beyond `run->step`, left by a run that was cut
 * off after its last checkpoint, are taken out of metrics.jsonl first. */
nd_status nd_metrics_open(const nd_run *run, nd_metrics *metrics);
void nd_metrics_close(nd_metrics *metrics);

/* One object for the step just completed; `evaluation` is NULL where there was none. */
nd_status nd_metrics_write(nd_metrics *metrics, const nd_run *run, const nd_step_result *step,
                           const nd_evaluation *evaluation, double tokens_per_second);

#endif
