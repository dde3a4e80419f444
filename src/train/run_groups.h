/* The groups of ranks of a run: [dist] group_ranks. */
#pragma once

#include "train/plan/plan_cost.h"

/* Sets run->comm->group_ranks to what the configuration says; where that is 0, it stays. Not collective. Errors:
 * ND_ECONFIG for groups that do not divide the ranks, saying which do. */
nd_status nd_run_set_groups(nd_run *run);

/* Checks the configured groups against hosts. Where group_ranks is 0 and hosts are several, sets run->comm->group_ranks
 * to what the cost model chooses (nd_plan_groups_choose) by links and rates measured here, or to 0, all ranks: with
 * workers, on GPUs, where gradients are rounded, and where hosts have different numbers of ranks. Logs what it chose
 * and why. run->config, comm and backend are there. Collective. Errors: ND_ECONFIG on every rank; those of
 * nd_links_probe and nd_plan_groups_predict. */
nd_status nd_run_choose_groups(nd_run *run);

/* "1 of 8 ranks: 41.2 ms a step predicted (2 of 4: 43.1); measured ...": the grouping with index `chosen`, the others, and
 * the links and rates they are predicted for. */
void nd_run_groups_describe(const nd_plan_groups *groups, int chosen,
                            const nd_plan_machine *machine, char *text, size_t size);
