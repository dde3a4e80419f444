/* What a run chooses by predicted cost (train/plan/plan_cost.h): groups of ranks, and the parts of
 * long messages. */
#pragma once

#include "train/plan/plan_cost.h"

/* Predictions for group sizes in ascending order: all ranks and, where hosts have equally many
 * ranks, sizes within a host and of whole hosts; above 64 ranks only one, eight and all hosts. */
enum { ND_PLAN_GROUPS_MAX = 16 };
typedef struct nd_plan_groups {
    int count;
    int ranks[ND_PLAN_GROUPS_MAX]; /* per group */
    nd_plan_cost cost[ND_PLAN_GROUPS_MAX];
} nd_plan_groups;

/* Why a run makes no choice and trains in one group, for its log; NULL: it chooses. `device`: its
 * ranks compute on GPUs; `even`: its hosts have equally many. */
const char *nd_plan_groups_fixed(const nd_config *config, bool device, bool even);

/* Ignores dist.group_ranks of `config`. Errors: those of nd_plan_cost_predict. */
nd_status nd_plan_groups_predict(const nd_config *config, int ranks, const nd_plan_machine *machine,
                                 nd_plan_groups *groups);

/* The index of the fastest grouping; and of the one to train with: all ranks in one group, unless
 * another saves 5 % of the step (measurements are rough) and needs at most `memory` bytes per
 * rank; of those within 1 % of the fastest the one with the largest groups, which keep least. */
int nd_plan_groups_fastest(const nd_plan_groups *groups);
int nd_plan_groups_choose(const nd_plan_groups *groups, size_t memory);

/* Writes "1 of 8 ranks: 41.2 ms a step predicted (2 of 4: 43.1, 8 of 1: 50.2)": the grouping with
 * index `chosen`, and the others. */
void nd_plan_groups_describe(const nd_plan_groups *groups, int chosen, char *text, size_t size);

/* The parts to send messages in, and what they are chosen by. */
typedef struct nd_plan_parts {
    int64_t kib;
    double step, before; /* seconds of a step with them, and with the default; equal if kept */
} nd_plan_parts;

/* Chooses [dist] part_kib where it is `auto`: the default, or the next that saves 1 % of the
 * predicted step. Sets it in `config`. Keeps the default for rounded gradients, whose bits depend
 * on it, on GPUs, where NCCL cuts messages, and where there are so many parts that a prediction
 * takes several as one. Errors: those of nd_plan_cost_predict. */
nd_status nd_plan_parts_choose(nd_config *config, int ranks, const nd_plan_machine *machine,
                               nd_plan_parts *parts);
