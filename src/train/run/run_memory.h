/* The layout of a run's arenas: counted in a sizing pass, then reserved. Not collective. */
#pragma once

#include "train/run/run.h"

/* Counts every category in run->arenas[].used without allocating. */
nd_status nd_run_memory_measure(nd_run *run);

/* Sizes, allocates and lays out every category. Errors: ND_ENOMEM naming the category. */
nd_status nd_run_memory_reserve(nd_run *run);
