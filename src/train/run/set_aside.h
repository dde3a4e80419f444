/* Sets aside the files of an earlier run, all or none, in this order:
 *
 *   1. RUN/metrics.jsonl, training.log, config.ini, snapshot_hosts and tensorboard move to
 *      RUN/.tmp_previous_001/,
 *   2. checkpoints move to RUN/.tmp_previous_001/checkpoints/, or where CHECKPOINTS is elsewhere or
 *      on another file system, to CHECKPOINTS/.tmp_previous_001/,
 *   3. .tmp_previous_001 is renamed to previous_001: in RUN, then in CHECKPOINTS.
 *
 * An error before step 3 moves everything back. After a crash the next start undoes the moves, or
 * completes them if step 3 had begun. The user's files are not moved. Rank 0 only. */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>

enum { ND_SET_ASIDE_PATH_MAX = 4096 };

typedef struct nd_set_aside {
    const char *run, *checkpoints; /* directories that exist */
    bool apart;                    /* checkpoints stay below `checkpoints`; set where they must */
    int number;                    /* out: an unused number; 0: there was nothing to move */
} nd_set_aside;

/* Sets the files aside. Errors: ND_EIO, ND_ECHECKPOINT with path and reason; nothing has moved
 * then. */
nd_status nd_set_aside_run(nd_set_aside *places);

/* Undoes or completes what a crash interrupted. Errors: as above. */
nd_status nd_set_aside_recover(const nd_set_aside *places);
