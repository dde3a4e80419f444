#pragma once

#include "train/run/run.h"

/* Waits until a save in progress has written masters and state of parameter `index`, which are to
 * change. */
void nd_save_wait_written(nd_run *run, int64_t index);
