/* The run's directory: what an earlier run left there, and this run's log and configuration. Rank 0
 * only. */
#pragma once

#include "train/run.h"

/* Before anything else of a start: makes RUN and the directory of checkpoints, finds out whether they can be
 * written and listed, and repairs what a crash left half done there (train/set_aside.h). Otherwise nothing in
 * them is touched, so that a start that fails leaves an earlier run as it was. The log goes to the terminal
 * and is remembered. Errors: ND_EIO or ND_ECHECKPOINT naming the path. */
nd_status nd_run_directory_check(nd_run *run);

/* Once the first step has shown that this run can train. With `fresh`, whatever an earlier run left is set
 * aside as RUN/previous_NNN, and the log says how to get it back; otherwise checkpoints of steps after
 * run->restored.step are (nd_checkpoint_supersede). Then opens RUN/training.log and writes RUN/config.ini,
 * the effective configuration; a run continues without those. Errors: ND_EIO or ND_ECHECKPOINT naming the
 * path, and then nothing has moved. */
nd_status nd_run_directory_open(nd_run *run, bool fresh);

/* Closes the log. */
void nd_run_directory_close(nd_run *run);

/* Whether the terminal behind rank 0's standard output is one: under mpirun ranks write to a
 * pseudo-terminal even when mpirun itself writes to a file. */
bool nd_run_directory_on_terminal(const nd_comm *comm);
