/* Predicts the time of a step of a configuration on a described machine with
 * train/plan/cost_model.h. Computation is taken from a measured step of one rank, or from
 * operations and a rate; communication from the run's own layout functions. */
#pragma once

#include "train/plan/cost_model.h"
#include "train/run/run.h"

#include <stdio.h>

typedef struct nd_plan_machine {
    nd_link between, within;            /* between hosts; between ranks on a host */
    double add_per_byte, core_per_byte; /* seconds */
    int hosts;
    /* Of one rank: operations per second in whole steps, or seconds for a step; the other is 0. */
    double flops, step;
    /* seconds of `step` that do not depend on the batch; 0: estimated from operations */
    double optimizer;
    nd_backend *backend; /* not owned; NULL: one is created */
} nd_plan_machine;

typedef struct nd_plan_cost {
    nd_cost cost;
    int ranks, hosts;
    double tokens;      /* of a step */
    double alone;       /* seconds of the same step on one rank */
    double rank_alone;  /* seconds of a step of one rank's share of the batch, with all updates */
    double update_even; /* seconds of an evenly distributed update */
    int idle;           /* ranks that own no parameter */
    size_t memory;      /* of rank 0 in its arenas, bytes */
    double least_part;  /* bytes: shorter parts of messages are predicted as if they were so long,
                           because there would be too many */
    bool simulated;
    bool compresses; /* gradients between hosts are compressed, in times but not in bytes */
} nd_plan_cost;

/* Predicts a checked configuration. Errors: those of nd_plan_create and nd_cost_predict; ND_ECONFIG
 * with rounds, or for groups that do not fit the hosts. */
nd_status nd_plan_cost_predict(const nd_config *config, int ranks, const nd_plan_machine *machine,
                               nd_plan_cost *plan);

/* Efficiency on N ranks. Strong scaling: alone / (N step), the same batch; weak scaling: rank_alone
 * / step, the same batch per rank. */
double nd_plan_cost_strong(const nd_plan_cost *plan);
double nd_plan_cost_weak(const nd_plan_cost *plan);

/* The same step with the real collectives on simulated links (train/plan/simulated_step.h). */
nd_status nd_plan_cost_simulate(const nd_config *config, int ranks, const nd_plan_machine *machine,
                                nd_plan_cost *plan);

/* Prints a table of the parts of a step and both efficiencies. */
void nd_plan_cost_print(const nd_plan_cost *plan, FILE *out);

/* Operations of a step on all ranks; elementwise work is weighted as in nd_optimizer_cost. */
double nd_plan_step_flops(const nd_run *run);

/* Measures the operations per second of whole steps on `backend` (NULL: on one of its own, for a
 * rank that shares this machine with `ranks` - 1 others): trains two steps of a one-layer model
 * with these widths and times the second. Errors: those of nd_run_create. */
nd_status nd_plan_measure_flops(const nd_config *config, int ranks, nd_backend *backend,
                                double *flops);
