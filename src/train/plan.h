/* The plan of a run: what it will need, before it starts. The layout functions of the run itself are
 * measured for every rank, so that plan and run agree by construction. */
#ifndef ND_TRAIN_PLAN_H
#define ND_TRAIN_PLAN_H

#include "train/run.h"

typedef struct nd_plan {
    int ranks;
    size_t (*bytes)[ND_MEMORY_COUNT]; /* [ranks] */
    int fullest;                      /* rank with the largest sum */
    int64_t parameters, parameters_ternary;
    int64_t tokens_per_step;
    double flops_per_step;
    double reduce_bytes, gather_bytes; /* of a step, sent by all ranks together */
} nd_plan;

/* From a checked configuration. Errors: ND_ECONFIG when the batch cannot be shared by `ranks`. */
nd_status nd_plan_create(const nd_config *config, int ranks, nd_plan *plan);
void nd_plan_destroy(nd_plan *plan);

size_t nd_plan_rank_bytes(const nd_plan *plan, int rank);

/* Tables of memory by category, wire and arithmetic; with `device_memory` > 0 whether it fits, and what
 * would make it fit. */
void nd_plan_print(const nd_plan *plan, const nd_config *config, size_t device_memory, FILE *out);

#endif
