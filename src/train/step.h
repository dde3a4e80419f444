/* One optimizer step, over all ranks: batch -> forward and backward passes -> reduced gradients ->
 * judgement -> updated masters -> published weights. */
#pragma once

#include "train/rank_times.h"
#include "train/run.h"

/* The report that ranks exchange at the end of a step. */
enum { ND_STEP_REPORT_BYTES = 48 };

typedef struct nd_step_result {
    double loss;       /* mean next-token cross-entropy of the batch, nats */
    double total_loss; /* with auxiliary terms */
    double grad_norm;  /* before clipping */
    double lr;
    double kept_fraction; /* of the tokens, in the backward pass */
    double data_wait_ms, comm_wait_ms, comm_busy_ms, step_ms;
    nd_times_summary times; /* of all ranks, by phase */
    uint64_t comm_bytes;    /* sent by all ranks */
    bool stop_requested;    /* by a signal, on any rank */
    bool save_ready;        /* a save is under way, and every rank has done its part of its stage */
    bool snapshot_ready;    /* the same of a snapshot */
    nd_judgement judgement;
    bool round_ended;    /* workers synchronised after it (train/rounds.h) */
    bool skipped;        /* not good: nothing was updated, skipped_because says why in words */
    bool partly_updated; /* immediate updates: masters changed, even if the step was then skipped */
    char skipped_because[320];
} nd_step_result;

/* Collective. `stop_requested`: this rank was asked to stop. A step whose
 * loss or gradient is not finite, or whose loss is a spike, counts and moves the data on, but updates
 * nothing; only with immediate updates may a bad gradient come after the layers above it were updated
 * (partly_updated), and then the run must go back to a checkpoint. Errors: those of the loader on any
 * rank, which all ranks hold then (nd_run_agree), with everything but scratch memory as it was before. */
nd_status nd_step_run(nd_run *run, bool stop_requested, nd_step_result *result);
