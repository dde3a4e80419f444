/* Whether a checkpoint may be resumed: it must belong to this directory's run, and the data must be
 * the same. */
#pragma once

#include "train/checkpoint/checkpoint.h"
#include "train/run/run.h"

/* Decides at the start, before anything is modified, whether files of an earlier run are to be set
 * aside: for a fresh start, and when `resume` names a checkpoint elsewhere that is not known to
 * belong to the same run. Rank 0. Errors: ND_ECHECKPOINT when `resume` names no checkpoint, or one
 * of another run among this run's checkpoints. */
nd_status nd_resume_sets_aside(const nd_config *config, const char *resume, bool *aside);

/* The newest complete checkpoint in the run's directory of checkpoints; when there is none, the one
 * elsewhere that the run began with; else "". Rank 0. Errors: ND_ECHECKPOINT, also where this run's
 * checkpoints are elsewhere, or the one it began with is gone. */
nd_status nd_resume_newest(nd_run *run, char path[ND_CHECKPOINT_PATH_MAX]);

/* Whether a checkpoint is in the run's directory of checkpoints, where nd_resume_newest looks. */
bool nd_resume_is_own(const nd_config *config, const char *path);

/* Sets run->restored.base for a run that resumes the checkpoint `path`, "" for none. Rank 0.
 * Errors: ND_ENOMEM. */
nd_status nd_resume_note_base(nd_run *run, const char *path);

/* Checks that no checkpoint where this run will save its own, and remove older ones, is of another
 * run. Not for a run that sets aside what is there. Rank 0. Errors: ND_ECHECKPOINT naming both. */
nd_status nd_resume_check_directory(const nd_run *run);

/* After a checkpoint was restored: adopts its run's id and compares the data. If the training data
 * differs, run->start.new_data says whether that is an error or the run continues with the new
 * data, at the start of an epoch that it has not seen; other held-out data is only logged. The same
 * on all ranks. Errors: ND_EDATA naming the first difference and what to do. */
nd_status nd_resume_check(nd_run *run, const nd_checkpoint *checkpoint);

/* Logs how a changed number of tokens per step affects the rest of the run. */
void nd_resume_describe_lengths(nd_run *run, const nd_config *before);
