/* The run's directory: what an earlier run left there, and this run's log and configuration. Rank 0
 * only. */
#ifndef ND_TRAIN_RUN_DIRECTORY_H
#define ND_TRAIN_RUN_DIRECTORY_H

#include "train/run.h"

/* Opens RUN/training.log, made with the directory when absent. With `fresh`, whatever an earlier run
 * left in RUN and in the directory of checkpoints is first moved to RUN/previous_NNN, so that a new
 * run neither overwrites nor resumes it. Errors: ND_EIO naming the path. */
nd_status nd_run_directory_open(nd_run *run, bool fresh);

/* Writes RUN/config.ini, the effective configuration. */
nd_status nd_run_directory_save_config(const nd_run *run);

/* Whether the terminal behind rank 0's standard output is one: under mpirun ranks write to a
 * pseudo-terminal even when mpirun itself writes to a file. */
bool nd_run_directory_on_terminal(const nd_comm *comm);

#endif
