/* What --resume means: which checkpoint or snapshot a run resumes from. All functions are collective. */
#pragma once

#include "train/checkpoint/checkpoint.h"
#include "train/run.h"

/* Rank 0 chooses and broadcasts: the checkpoint on disk that `resume` ("auto", "none" or a path) means; "" for a
 * fresh start. Errors: ND_ECHECKPOINT. */
nd_status nd_resume_choose(nd_run *run, const char *resume, char path[ND_CHECKPOINT_PATH_MAX]);

/* Restores what `resume` means: with "auto" the newest whole one of checkpoints and, where the run looks for
 * them, snapshots; of two of the same step the snapshot, which is read sooner. Errors: as
 * nd_checkpoint_restore. */
nd_status nd_resume(nd_run *run, const char *resume);
