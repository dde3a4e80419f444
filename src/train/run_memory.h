/* What a run takes from its arenas: one layout, measured or taken. */
#pragma once

#include "train/run.h"

/* Counts every category into run->arenas[].used; nothing is allocated. */
nd_status nd_run_memory_measure(nd_run *run);

/* Measures, allocates and lays out every category. Errors: ND_ENOMEM naming the category. */
nd_status nd_run_memory_reserve(nd_run *run);
