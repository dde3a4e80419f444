/* The progress line. */
#pragma once

#include "train/run/run.h"
#include "train/step.h"

/* State of the progress line. */
typedef struct nd_progress_state {
    double started;           /* nd_seconds at the first step of this process */
    int64_t first_step;       /* completed steps at that time */
    double tokens_per_second; /* smoothed over recent steps */
    double val_bpb, val_loss; /* of the last evaluation; negative before the first */
    int64_t last_step;
} nd_progress_state;

/* Starts the clock at the run's current step; `last_step` is the run's target. */
void nd_progress_begin(nd_progress_state *progress, const nd_run *run, int64_t last_step);

/* Includes a step's duration in the smoothed speed. */
void nd_progress_advance(nd_progress_state *progress, const nd_run *run,
                         const nd_step_result *step);

/* "step 120/2000  loss 3.412  val 1.204 bpb  lr 0.0200  |g| 0.81  12.3k tok/s  eta 3m12s ..." */
void nd_progress_line(const nd_progress_state *progress, const nd_run *run,
                      const nd_step_result *step, char *text, size_t size);
