/* Which failed saves end a run. The weights in memory are sound whatever happens to a disk, so a save on
 * schedule that fails is logged and tried again at the next interval; [logging] max_failed_saves of them in
 * a row end the run. A save that nothing follows must succeed. All are collective, and all ranks decide
 * alike. */
#pragma once

#include "train/run.h"

/* nd_save_begin on schedule, after the end of the save before. Errors: ND_ECHECKPOINT when it was the last
 * that may fail. */
nd_status nd_save_attempt(nd_run *run, bool background);

/* nd_save_advance. Errors: as nd_save_attempt. */
nd_status nd_save_attempt_advance(nd_run *run);

/* Ends the save under way; with `must`, it must succeed. Errors: as nd_save_attempt. */
nd_status nd_save_attempt_finish(nd_run *run, bool must);

/* Saves now and waits, unless this step is saved already. Errors: ND_ECHECKPOINT. */
nd_status nd_save_last(nd_run *run);

/* The run ends with the error `status`, after which the weights of all ranks are still those of run->position.step:
 * saves them first, and keeps the error whether or not that works. Returns `status`. */
nd_status nd_save_before_error(nd_run *run, nd_status status);
