/* The plan of a run: what it needs, computed before it starts. Uses the run's own layout functions
 * for every rank, so that plan and run agree by construction. */
#pragma once

#include "train/plan/plan_wire.h"

typedef struct nd_plan {
    int ranks;
    size_t (*bytes)[ND_MEMORY_COUNT]; /* [ranks] */
    int fullest;                      /* the rank with the largest sum */
    size_t loader;                    /* prefetched batches of a rank */
    size_t workspace;                 /* of the backend; 0 until measured */
    size_t saved_copy; /* of the rank that saves most: host memory for saves of GPU memory */
    size_t snapshot;   /* of the rank that saves most: two generations, without copies */
    size_t snapshots;  /* of all ranks */
    int64_t parameters, parameters_ternary;
    int64_t tokens_per_step;
    double flops_per_step, flops_per_run; /* of the model; per step: while all heads run */
    nd_wire_bytes wire;
    bool slow_bf16; /* bf16 on a CPU without bf16 products that are faster than f32 ones */
} nd_plan;

/* Plans a checked configuration on `ranks` ranks; nd_plan_destroy frees the plan. Errors:
 * ND_ECONFIG when the batch cannot be distributed over `ranks`; ND_ENOMEM. */
nd_status nd_plan_create(const nd_config *config, int ranks, nd_plan *plan);
void nd_plan_destroy(nd_plan *plan);

/* Measures plan->workspace by training one step of a one-layer model with these widths: workspace
 * depends on shapes, not on the number of layers. Takes that step's memory and time. */
nd_status nd_plan_measure_workspace(const nd_config *config, nd_plan *plan);

/* Prints tables of memory by category, wire and arithmetic; with `device_memory` > 0 also whether
 * the run fits, and what would make it fit. */
void nd_plan_print(const nd_plan *plan, const nd_config *config, size_t device_memory, FILE *out);
