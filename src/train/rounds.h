/* Rare synchronization: K workers train separately for H steps, then combine into one model
 * (DiLoCo, arXiv:2311.08105; with Muon inside: MuLoCo, arXiv:2505.23725).
 *
 * A worker is a complete nd_run with its own masters, optimizer and reducer. Its batch is its block
 * of the global batch, and its comm is `inside`: its ranks, or this rank alone. R ranks run K
 * workers: with R >= K a worker has R/K consecutive ranks, with R < K a rank runs K/R consecutive
 * workers one after another. Either way a rank's workers read the rank's contiguous part of the
 * batch, and the results of a worker do not depend on R.
 *
 * The run itself holds the model of the last synchronization: its masters are those that the
 * workers started from, on all ranks that own the parameter within their worker, and evaluations
 * use its codes. train/outer_step.h describes the end of a round. */
#pragma once

#include "train/run/run.h"

/* The most states that the outer step has of a parameter. */
enum { ND_OUTER_STATES_MAX = 4 };

struct nd_rounds {
    int64_t workers; /* K */
    int carried;     /* workers of this rank */
    int first;       /* index of the first of them */
    nd_run *worker;  /* [carried] */
    nd_comm *inside; /* the ranks of this rank's worker */
    nd_comm *across; /* the ranks at the same position in each worker; with R < K all ranks */
    struct nd_outer *outer; /* train/outer_step.h */
};

/* The workers of a run on this rank; without rounds one, the run itself. */
int nd_run_workers(const nd_run *run);
nd_run *nd_run_worker(nd_run *run, int i);

/* Sends every projector of these workers from its owner to all ranks. Collective. */
nd_status nd_run_publish_projectors(nd_run *run);

/* Clears the rounding errors that wire formats left on this rank or in replicas, so that the run
 * continues exactly like one restored from a checkpoint of this moment. Collective. */
nd_status nd_run_reset_error_feedback(nd_run *run);

/* The rank that owns a parameter in worker k. */
int nd_rounds_rank(const nd_run *run, int64_t k, int64_t index);

/* The index of worker k's first value in an allgather of `carried` values per rank. */
int nd_rounds_place(const nd_run *run, int64_t k);

/* Whether the next step ends a round: every sync_every-th does, and the last one. */
bool nd_rounds_end_with_next(const nd_run *run);

/* Sets the position of the workers to that of the run. Not collective. */
void nd_rounds_set_position(nd_run *run);

/* Completes operations in flight on `inside`, so that another comm may be used. Collective
 * over it. */
nd_status nd_rounds_finish_inside(const nd_run *run);

/* Adds to the run's comm what `inside` and `across` have sent and waited since the last call. Not
 * collective. */
void nd_rounds_count_traffic(nd_run *run);

/* After masters were initialized or restored: sets the run's model to that of its masters and, with
 * `workers`, also each worker's masters to them. Collective over `inside`. */
nd_status nd_rounds_adopt(nd_run *run, bool workers);
