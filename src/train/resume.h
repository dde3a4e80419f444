/* --resume: chooses the checkpoint or snapshot that a run resumes. All functions are collective. */
#pragma once

#include "train/checkpoint/checkpoint.h"
#include "train/run/run.h"

/* Rank 0 chooses the checkpoint on disk that `resume` ("auto", "none" or a path) refers to and
 * broadcasts its path; "" for a fresh start. Errors: ND_ECHECKPOINT. */
nd_status nd_resume_choose(nd_run *run, const char *resume, char path[ND_CHECKPOINT_PATH_MAX]);

/* Restores what `resume` refers to. "auto" is the newest complete checkpoint or snapshot; of the
 * same step the snapshot, which is faster to read. Errors: as nd_checkpoint_restore. */
nd_status nd_resume(nd_run *run, const char *resume);
