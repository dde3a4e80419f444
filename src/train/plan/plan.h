/* The plan of a run: what it will need, before it starts. The layout functions of the run itself are
 * measured for every rank, so that plan and run agree by construction. */
#pragma once

#include "train/plan/plan_wire.h"

typedef struct nd_plan {
    int ranks;
    size_t (*bytes)[ND_MEMORY_COUNT]; /* [ranks] */
    int fullest;                      /* rank with the largest sum */
    size_t loader;                    /* prefetched batches of a rank */
    size_t workspace;                 /* of the backend; 0 until measured */
    size_t saved_copy; /* of the rank that owns most: host memory of a save beside GPU memory */
    size_t snapshot,
        snapshots; /* of the rank that owns most, and of all: two generations, no copies */
    int64_t parameters, parameters_ternary;
    int64_t tokens_per_step;
    double flops_per_step, flops_per_run; /* of the model; a step's: while all heads run */
    nd_wire_bytes wire;
    bool slow_bf16; /* bf16 on CPUs without its instructions */
} nd_plan;

/* From a checked configuration. Errors: ND_ECONFIG when the batch cannot be shared by `ranks`. */
nd_status nd_plan_create(const nd_config *config, int ranks, nd_plan *plan);
void nd_plan_destroy(nd_plan *plan);

/* Fills plan->workspace: trains one step of a model of one layer with these widths, since workspace
 * depends on shapes and not on how many layers have them. Takes the memory and time of that. */
nd_status nd_plan_measure_workspace(const nd_config *config, nd_plan *plan);

/* All of a rank: its categories, loader, and workspace where that was measured. */
size_t nd_plan_rank_bytes(const nd_plan *plan, int rank);

/* Tables of memory by category, wire and arithmetic; with `device_memory` > 0 whether it fits, and what
 * would make it fit. */
void nd_plan_print(const nd_plan *plan, const nd_config *config, size_t device_memory, FILE *out);
