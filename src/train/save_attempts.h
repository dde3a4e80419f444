/* Decides which failed saves end a run. A failing disk does not affect the weights in memory, so a
 * failed scheduled save is logged and retried at the next interval; [logging] max_failed_saves
 * consecutive failures end the run. A save after which no other follows must succeed. All functions
 * are collective, and all ranks decide alike. */
#pragma once

#include "train/run/run.h"

/* nd_save_begin for a scheduled save, after finishing the one before. Errors: ND_ECHECKPOINT if too
 * many have failed. */
nd_status nd_save_attempt(nd_run *run, bool background);

/* nd_save_advance. Errors: as nd_save_attempt. */
nd_status nd_save_attempt_advance(nd_run *run);

/* Finishes the save in progress; with `must`, it must succeed. Errors: as nd_save_attempt. */
nd_status nd_save_attempt_finish(nd_run *run, bool must);

/* Saves and waits, unless this step is already saved. Errors: ND_ECHECKPOINT. */
nd_status nd_save_last(nd_run *run);

/* For a run that ends with the error `status` while the weights of all ranks are still those of
 * run->position.step: saves them, and keeps the error whether or not that succeeds. Returns
 * `status`. */
nd_status nd_save_before_error(nd_run *run, nd_status status);
