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
    double optimizer;    /* seconds of `step` that do not depend on the batch; 0: by operations */
    nd_backend *backend; /* not owned; NULL: one is made */
} nd_plan_machine;

typedef struct nd_plan_cost {
    nd_cost cost;
    int ranks, hosts;
    double tokens;      /* of a step */
    double alone;       /* seconds of the same step on one rank */
    double rank_alone;  /* and of a step of a rank's share of the batch, updating everything */
    double update_even; /* seconds of an update that is shared evenly */
    int idle;           /* ranks that own no parameter */
    size_t memory;      /* of rank 0 in its arenas, bytes */
    bool simulated;
    bool shortens; /* gradients between hosts will be shortened, which is not counted */
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

/* What a step takes in groups of several sizes: all ranks, and on hosts of as many ranks each those that are within
 * a host or whole hosts; beyond 64 ranks a host, eight hosts and all. In order of size. */
enum { ND_PLAN_GROUPS_MAX = 16 };
typedef struct nd_plan_groups {
    int count;
    int ranks[ND_PLAN_GROUPS_MAX]; /* of a group */
    nd_plan_cost cost[ND_PLAN_GROUPS_MAX];
} nd_plan_groups;

/* Whatever dist.group_ranks of `config` is. Errors: those of nd_plan_cost_predict. */
nd_status nd_plan_groups_predict(const nd_config *config, int ranks, const nd_plan_machine *machine,
                                 nd_plan_groups *groups);

/* The index of the one that takes least; and of the one to train in: all ranks, unless another saves 5 % of the step
 * and has at most `memory` bytes a rank. What is measured before a run is known roughly, and small groups need
 * memory. */
int nd_plan_groups_fastest(const nd_plan_groups *groups);
int nd_plan_groups_choose(const nd_plan_groups *groups, size_t memory);

/* A table of what a step spends on what, and both efficiencies. */
void nd_plan_cost_print(const nd_plan_cost *plan, FILE *out);

/* Operations of a step as they are done, over all ranks: passes and updates, what is done element by
 * element weighed as in nd_optimizer_cost. */
double nd_plan_step_flops(const nd_run *run);

/* Operations a second of whole steps on this machine, by a rank that shares it with `ranks` - 1 others:
 * trains two steps of a model of one layer with these widths and times the second. */
nd_status nd_plan_measure_flops(const nd_config *config, int ranks, double *flops);
