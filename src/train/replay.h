/* Records repeated work once and replays it (nd_backend_ops.record).
 *
 * Work is identified by a key that determines the arguments of all its ops. The first time it runs
 * op by op, so that the backend's workspace reaches its size; the second time it is recorded; from
 * then on the recording is replayed, and recorded again when the backend's memory has moved. A
 * recording that fails has executed nothing: this work and all later work then runs op by op. */
#pragma once

#include "core/backend/backend.h"
#include "core/base/log.h"

enum { ND_REPLAY_KEY_MAX = 128, ND_REPLAY_KEPT = 32 };

typedef struct nd_replay nd_replay;

/* The ops of one piece of work, without other effects: it may be called twice for one run. */
typedef nd_status (*nd_replay_work)(void *context);

/* Logs to `log` when a failure disables recording. The caller destroys it. Errors: ND_ENOMEM. */
nd_status nd_replay_create(nd_backend *backend, nd_log *log, nd_replay **replay);
void nd_replay_destroy(nd_replay *replay);

/* Runs the work. key: `size` <= ND_REPLAY_KEY_MAX bytes. Errors: those of the work run op by op. */
nd_status nd_replay_run(nd_replay *replay, const void *key, size_t size, nd_replay_work work,
                        void *context);

/* How often work was recorded and recordings were replayed. */
typedef struct nd_replay_counts {
    int64_t recorded, replayed;
} nd_replay_counts;
nd_replay_counts nd_replay_counted(const nd_replay *replay);
