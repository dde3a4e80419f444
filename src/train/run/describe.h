/* The first lines of the log: which run this is, and how it will train. */
#pragma once

#include "train/run/run.h"

/* Logs them on rank 0, from a run that is ready for its first step. */
void nd_describe_run(nd_run *run);
