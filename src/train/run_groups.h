/* The groups of ranks of a run: [dist] group_ranks. */
#pragma once

#include "train/run.h"

/* Sets run->comm->group_ranks. Not collective. Errors: ND_ECONFIG for groups that do not divide the ranks, saying
 * which do. */
nd_status nd_run_choose_groups(nd_run *run);
