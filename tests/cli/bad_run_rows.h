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
     "the user's config.ini in the run's directory",
     "mkdir $W/run && cp $D/shards.ini $W/run/config.ini",
     "$B --config $W/run/config.ini --run-dir $W/run",
     2,
     {"run/config.ini: this is where the run's configuration goes", "rename it"}},
    {"run directories",
     "--resume auto without the --checkpoint-dir that the run had",
     COPY_RUN " && mv $W/run/checkpoints $W/ck && sed -i \"s#^checkpoint_dir =.*#checkpoint_dir = "
              "$W/ck#\" $W/run/config.ini",
     RESUME,
     4,
     {"run/checkpoints holds no checkpoint, but the run in ", "--checkpoint-dir", "--resume none"}},
    {"run directories",
     "config.ini of one run and checkpoints of another",
     COPY_RUN " && sed -i 's/^; run_id = .*/; run_id = 0123456789abcdef/' $W/run/config.ini",
     "$B info $W/run",
     4,
     {"/run/checkpoints/latest, where", "is of run ", "config.ini is of run 0123456789abcdef"}},
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
