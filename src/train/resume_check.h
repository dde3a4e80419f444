/* Whether a checkpoint may be resumed here: it is of this directory's run, and the data is unchanged. */
#pragma once

#include "train/checkpoint/checkpoint.h"
#include "train/run.h"

/* What a start finds in its directory, before anything is touched: whether what an earlier run left there
 * is to be set aside, because this is a fresh start, or `resume` names a checkpoint that lies elsewhere
 * and is not known to be of the same run. Rank 0. Errors: ND_ECHECKPOINT when `resume` names no
 * checkpoint, or one of another run that lies where this run's checkpoints do. */
nd_status nd_resume_sets_aside(const nd_config *config, const char *resume, bool *aside);

/* A checkpoint that was found in the run's directory of checkpoints must be of the run that the directory
 * holds. Rank 0. Errors: ND_ECHECKPOINT naming both. */
nd_status nd_resume_check_run(const nd_config *config, const char *checkpoint);

/* What --resume auto means: the newest whole checkpoint of the run's directory of checkpoints, "" when
 * there is none. Rank 0. Errors: ND_ECHECKPOINT, also where this run's checkpoints lie elsewhere. */
nd_status nd_resume_newest(nd_run *run, char path[ND_CHECKPOINT_PATH_MAX]);

/* Called with the checkpoint that was restored: takes its run's id, and compares the data. Where the data
 * differs, run->start.new_data says whether it is an error, or the run continues with the new data at the start
 * of an epoch that it has not seen. The same on all ranks. Errors: ND_EDATA naming the first difference and what to do. */
nd_status nd_resume_check(nd_run *run, const nd_checkpoint *checkpoint);

/* Logs what a changed number of tokens per step means for the rest of the run. */
void nd_resume_describe_lengths(nd_run *run, const nd_config *before);
