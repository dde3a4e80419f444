/* Setting aside what an earlier run left: all of it or nothing, in this order.
 *
 *   1. RUN/metrics.jsonl, training.log, config.ini, snapshot_hosts and tensorboard move to RUN/.tmp_previous_001/,
 *   2. checkpoints to RUN/.tmp_previous_001/checkpoints/, or to CHECKPOINTS/.tmp_previous_001/ where that
 *      is a directory of its own or on another file system,
 *   3. .tmp_previous_001 becomes previous_001: in RUN, then in CHECKPOINTS.
 *
 * An error before step 3 moves everything back; what a crash cut off, the next start undoes, or completes
 * after step 3 has begun. The user's files stay where they are. Rank 0 only. */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>

enum { ND_SET_ASIDE_PATH_MAX = 4096 };

typedef struct nd_set_aside {
    const char *run, *checkpoints; /* directories that exist */
    bool apart;                    /* checkpoints stay below `checkpoints`; set where they must */
    int number; /* chosen: one that was never used; 0: there was nothing to move */
} nd_set_aside;

/* Errors: ND_EIO or ND_ECHECKPOINT with the path and the reason; then everything is where it was. */
nd_status nd_set_aside_run(nd_set_aside *places);

/* Undoes or completes what a crash cut off. Errors: as above. */
nd_status nd_set_aside_recover(const nd_set_aside *places);
