/* Rare synchronisation: K workers train apart for H steps, then agree on one model (DiLoCo, arXiv:2311.08105;
 * with Muon inside: MuLoCo, arXiv:2505.23725).
 *
 * A worker is a whole nd_run with masters, optimizer and reducer of its own, whose batch is the worker's block of
 * the global batch and whose comm is `inside`: its ranks, or this rank alone. R ranks run K workers: with R >= K a
 * worker is R/K consecutive ranks, with R < K a rank carries K/R consecutive workers one after another. Either way
 * a rank's workers read the rank's contiguous part of the batch, and what a worker computes does not depend on R.
 *
 * The run itself holds the model of the last synchronisation: masters are what workers started from, on all ranks
 * that own the parameter inside their worker, and its codes are what is evaluated. What happens at the end of a round
 * is in train/outer_step.h. */
#pragma once

#include "train/outer_step.h"
#include "train/run.h"

struct nd_rounds {
    int64_t workers; /* K */
    int carried;     /* workers of this rank, */
    int first;       /* the first of them */
    nd_run *worker;  /* [carried] */
    nd_comm *inside; /* the ranks of this rank's worker */
    nd_comm *across; /* the ranks at this place in each worker; with R < K all ranks */
    nd_outer outer;
};

/* nd_run_prepare of a run with rounds, in its place. Collective. Errors: ND_ECONFIG where K and the number of ranks
 * do not divide each other, and those of nd_run_prepare. */
nd_status nd_rounds_prepare(nd_run *run);
void nd_rounds_destroy(nd_rounds *rounds);

/* A run's workers on this rank; without rounds one, the run itself. */
int nd_run_workers(const nd_run *run);
nd_run *nd_run_worker(nd_run *run, int i);

/* The rank that owns a parameter in worker k. */
int nd_rounds_rank(const nd_run *run, int64_t k, int64_t index);

/* Where in an allgather of `carried` values a rank those of worker k stand first. */
int nd_rounds_place(const nd_run *run, int64_t k);

/* Whether a round ends with the step that the run does next: every sync_every steps and with the last one. */
bool nd_rounds_end_with_next(const nd_run *run);

/* Workers stand where the run stands. Not collective. */
void nd_rounds_set_position(nd_run *run);

/* All that was begun inside is done: another comm may be called. Collective over `inside`. */
nd_status nd_rounds_finish_inside(const nd_run *run);

/* Adds what the parts of the run's comm have sent and waited since to the run's comm. Not collective. */
void nd_rounds_count_traffic(nd_run *run);

/* After masters were initialised or restored: the run's model becomes that of its masters. With `workers` also each
 * worker's masters become them. Collective over `inside`. */
nd_status nd_rounds_adopt(nd_run *run, bool workers);

/* The end of a round. Collective. Errors: ND_EPEER. */
nd_status nd_rounds_synchronize(nd_run *run);
