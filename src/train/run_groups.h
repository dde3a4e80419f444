/* The groups of ranks of a run: [dist] group_ranks. */
#pragma once

#include "train/run.h"

/* Sets run->comm->group_ranks; 0 in the configuration: all ranks are one group. Not collective. Errors: ND_ECONFIG
 * for groups that do not divide the ranks, saying which do. */
nd_status nd_run_choose_groups(nd_run *run);

/* Whether each group of `group` consecutive ranks is within a host or has whole hosts, of sizes[hosts] ranks. */
bool nd_groups_fit_hosts(const int *sizes, int hosts, int group);

/* Collective. Errors: ND_ECONFIG on every rank for groups that begin or end inside of hosts that they go beyond,
 * saying which fit. */
nd_status nd_run_check_groups(const nd_config *config, nd_comm *comm);
