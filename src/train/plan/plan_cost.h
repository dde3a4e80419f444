/* The predicted time of a step on a machine that is described: train/plan/cost_model.h applied to a
 * configuration. What is computed comes from a measured step of one rank, or from operations and a rate;
 * what is sent from the layout functions of the run itself. */
#pragma once

#include "train/plan/cost_model.h"
#include "train/run.h"

#include <stdio.h>

typedef struct nd_plan_machine {
    nd_link between, within;            /* of hosts; of ranks of a host */
    double add_per_byte, core_per_byte; /* seconds */
    int hosts;
    /* One of these is 0. Of one rank: operations a second in whole steps, or the seconds it needs for a
     * step of the configured batch. */
    double flops, step;
    double optimizer; /* seconds of `step` that do not depend on the batch; 0: by operations */
} nd_plan_machine;

typedef struct nd_plan_cost {
    nd_cost cost;
    int ranks, hosts;
    double tokens;      /* of a step */
    double alone;       /* seconds of the same step on one rank */
    double rank_alone;  /* and of a step of a rank's share of the batch, updating everything */
    double update_even; /* seconds of an update that is shared evenly */
    int idle;           /* ranks that own no parameter */
    bool simulated;
} nd_plan_cost;

/* From a checked configuration. Errors: those of nd_plan_create. */
nd_status nd_plan_cost_predict(const nd_config *config, int ranks, const nd_plan_machine *machine,
                               nd_plan_cost *plan);

/* Efficiency of N ranks: strong = alone / (N step), the same batch; weak = rank_alone / step, the same
 * batch a rank. */
double nd_plan_cost_strong(const nd_plan_cost *plan);
double nd_plan_cost_weak(const nd_plan_cost *plan);

/* The same step by the real collectives on simulated links (train/plan/simulated_step.h): plan->cost is what
 * that took. */
nd_status nd_plan_cost_simulate(const nd_config *config, int ranks, const nd_plan_machine *machine,
                                nd_plan_cost *plan);

/* By nd_plan_cost_predict, which gave `configured`: the group_ranks of those tried that takes the fewest seconds a
 * step. Errors: those of nd_plan_cost_predict. */
nd_status nd_plan_fastest_groups(const nd_config *config, int ranks, const nd_plan_machine *machine,
                                 const nd_plan_cost *configured, int *group, double *seconds);

/* A table of what a step spends on what, and both efficiencies. */
void nd_plan_cost_print(const nd_plan_cost *plan, FILE *out);

/* Operations of a step as they are done, over all ranks: passes and updates, what is done element by
 * element weighed as in nd_optimizer_cost. */
double nd_plan_step_flops(const nd_run *run);

/* Operations a second of whole steps on this machine, by a rank that shares it with `ranks` - 1 others:
 * trains two steps of a model of one layer with these widths and times the second. */
nd_status nd_plan_measure_flops(const nd_config *config, int ranks, double *flops);
