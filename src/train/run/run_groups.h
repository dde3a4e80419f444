/* The groups of a run's ranks: [dist] group_ranks. */
#pragma once

#include "train/plan/plan_choice.h"

/* Checks the configured groups against the hosts. With group_ranks = 0 and several hosts, sets
 * run->comm->group_ranks and part_bytes to the choices of the cost model (nd_plan_groups_choose,
 * then nd_plan_parts_choose) from links and rates measured here; or the groups to 0, one group,
 * with workers, where the choice would change the bits of gradients (rounded ones, and those that
 * NCCL adds in its own order), on GPUs without NCCL, and where hosts have different numbers of
 * ranks. Logs the choice and the reason. Requires run->config, backend, and comm with its device
 * attached. Collective. Errors: ND_ECONFIG on every rank; those of nd_links_probe and
 * nd_plan_groups_predict. */
nd_status nd_run_choose_groups(nd_run *run);

/* Writes "1 of 8 ranks: 41.2 ms a step predicted (2 of 4: 43.1); in parts of 64 KiB 40.1 ms;
 * measured ...": the grouping with index `chosen`, the others, the parts of messages, and the links
 * and rates they are predicted from. */
void nd_run_groups_describe(const nd_plan_groups *groups, int chosen, const nd_plan_parts *parts,
                            const nd_plan_machine *machine, char *text, size_t size);
