/* The rows of bad_input_rows.h about what lies in a run's directory. */
#ifndef ND_TESTS_CLI_BAD_RUN_ROWS_H
#define ND_TESTS_CLI_BAD_RUN_ROWS_H

#include "cli/bad_input_rows.h"

static const bad_input bad_runs[] = {
    {"run directories",
     "a link that leads nowhere for checkpoints",
     "mkdir $W/run && ln -s nowhere $W/run/checkpoints",
     SHARDS " --resume auto",
     1,
     {"/run/checkpoints exists and is not a directory"}},
    {"run directories",
     "a file with the name of a checkpoint",
     "mkdir -p $W/run/checkpoints && echo mine > $W/run/checkpoints/step_00000002",
     SHARDS " --checkpoint-interval 2",
     0,
     {"warning: saving a checkpoint failed, 1 in a row", "step_00000002 is in the way",
      "move it elsewhere"}},
    {"run directories",
     "a file with the name of the last checkpoint",
     "mkdir -p $W/run/checkpoints && echo mine > $W/run/checkpoints/step_00000006",
     SHARDS,
     4,
     {"step_00000006 is in the way: this program did not write it; move it elsewhere"}},
    {"run directories",
     "the newest checkpoint behind a symbolic link, --resume auto",
     COPY_RUN " && mv " LATEST " $W/moved && ln -s $W/moved " LATEST,
     RESUME,
     0,
     {"warning: ", "step_00000006 is not a directory that this program wrote",
      "step_00000004 at step 4"}},
    {"run directories",
     "a copy under the name of another step, --resume auto",
     COPY_RUN " && cp -r " LATEST " $W/run/checkpoints/step_00000099",
     RESUME,
     0,
     {"warning: skipping", "step_00000099: its manifest is of step 6", "step_00000006 at step 6"}},
};
enum { BAD_RUNS = sizeof bad_runs / sizeof bad_runs[0] };

#endif
