/* The run's directory: an earlier run's files, this run's log and configuration. Rank 0 only. */
#pragma once

#include "train/run/run.h"

/* The first check of a start: creates RUN and the directory of checkpoints, checks that they can be
 * written and listed, and repairs what a crash left incomplete (train/run/set_aside.h). Changes
 * nothing else, so that a start that fails leaves an earlier run as it was. Until
 * nd_run_directory_open the log goes to the terminal and is buffered. Errors: ND_EIO or
 * ND_ECHECKPOINT naming the path; ND_ECONFIG when RUN/config.ini is not this program's. */
nd_status nd_run_directory_check(nd_run *run);

/* Call it after the first step has shown that this run can train. With `fresh`, sets the files of
 * an earlier run aside as RUN/previous_NNN, and the log says how to restore them; otherwise sets
 * aside checkpoints of steps after run->restored.step (nd_checkpoint_supersede). Then opens
 * RUN/training.log and writes RUN/config.ini, the effective configuration; a run continues without
 * those two. Errors: ND_EIO or ND_ECHECKPOINT naming the path; nothing has moved then. */
nd_status nd_run_directory_open(nd_run *run, bool fresh);

/* Call it before anything is read or written there by path: whether RUN and the directory of
 * checkpoints are still those that this run locked; removed ones are made again. Rank 0 of a
 * training run answers for all, others return ND_OK. Errors: as nd_run_locks_confirm. */
nd_status nd_run_directory_confirm(const nd_run *run);

/* Makes `directory`, the value of a key of [logging], independent of the working directory, if the
 * key can hold the path. */
void nd_run_directory_make_absolute(nd_config *config, const char *key, const char *directory);

/* Closes the log. */
void nd_run_directory_close(nd_run *run);
