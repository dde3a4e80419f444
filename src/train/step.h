/* One optimizer step over all ranks: batch -> forward and backward passes -> reduced gradients ->
 * judgement -> updated masters -> published weights. */
#pragma once

#include "train/log/rank_times.h"
#include "train/run/run.h"

/* The report that ranks exchange at the end of a step. */
enum { ND_STEP_REPORT_BYTES = 48 };

/* Whether ranks that overlap send weights as they are updated: with immediate updates, or if an
 * update takes longer than 0.2 ms for each rank, some latencies of a ring, and so hides them. */
static inline bool nd_step_sends_weights_ahead(bool immediate, double update_seconds, int ranks)
{
    return immediate || update_seconds > 0.2e-3 * ranks;
}

typedef struct nd_step_result {
    double loss;       /* mean next-token cross-entropy of the batch, nats */
    double total_loss; /* with auxiliary terms */
    double grad_norm;  /* before clipping */
    double lr;
    double kept_fraction; /* fraction of the tokens in the backward pass */
    double data_wait_ms, comm_wait_ms, comm_busy_ms, step_ms;
    nd_times_summary times; /* of all ranks, by phase */
    uint64_t comm_bytes;    /* sent by all ranks */
    bool stop_requested;    /* by a signal, on any rank */
    /* a save is in progress, and every rank has finished its part of the current stage */
    bool save_ready;
    bool snapshot_ready; /* the same for a snapshot */
    nd_judgement judgement;
    bool round_ended; /* workers synchronized after this step (train/rounds.h) */
    bool skipped;     /* nothing was updated; skipped_because is the reason in words */
    /* with immediate updates: masters changed, even if the step was then skipped */
    bool partly_updated;
    char skipped_because[320];
} nd_step_result;

/* Runs a step. `stop_requested`: this rank was asked to stop. A step whose loss or gradient is not
 * finite, or whose loss is a spike, is counted and consumes its data, but updates nothing. Only
 * with immediate updates can a bad gradient appear after the layers above it were updated
 * (partly_updated); the run must then return to a checkpoint. Collective. Errors: those of the
 * loader on any rank, shared by all ranks (nd_comm_agree); everything except scratch memory is then
 * unchanged. */
nd_status nd_step_run(nd_run *run, bool stop_requested, nd_step_result *result);
