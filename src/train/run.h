/* A run: the state of a training process, passed down to every function that needs it. */
#pragma once

#include "core/base/log.h"
#include "core/config/config.h"
#include "core/model/model.h"
#include "data/dataset.h"
#include "data/loader.h"
#include "dist/comm.h"
#include "dist/ownership.h"
#include "dist/weight_gather.h"
#include "train/gradient_reducer.h"
#include "train/health.h"
#include "train/identity.h"
#include "train/memory.h"
#include "train/position.h"
#include "train/rank_times.h"
#include "train/reference_model.h"
#include "train/replay.h"

/* What the log said before RUN/training.log was opened; rank 0. Written by run_directory.c. */
typedef struct nd_early_log {
    char *text;
    size_t bytes;
} nd_early_log;

/* What is read. Written by run.c. */
typedef struct nd_run_data {
    nd_dataset *train, *val; /* val NULL when no held-out shard holds a window */
    int64_t short_held_out;  /* tokens of such a held-out split */
    void *tokenizer;         /* of the data, for checkpoints; rank 0; NULL when it has none */
    size_t tokenizer_bytes;
    nd_loader *loader;
} nd_run_data;

/* How the run began. Written by train.c, and by run_memory.c what it is about memory. */
typedef struct nd_run_start {
    bool new_data;      /* resume although the data has changed (train/resume_check.h) */
    bool sets_aside;    /* move an earlier run aside although this one resumes a checkpoint */
    bool has_directory; /* the run's directory is this run's (train/run_directory.h) */
    size_t resident;    /* bytes before the first arena: program and libraries */
    double peak_flops;  /* of one rank's dense products, measured; 0 unknown */
} nd_run_start;

/* The checkpoint it resumed. Written by checkpoint/checkpoint_read.c. */
typedef struct nd_restored {
    bool any;
    int64_t step; /* 0 without one */
} nd_restored;

/* Checkpoints it writes. Written by checkpoint/checkpoint_save.c; the last two by snapshot/. */
typedef struct nd_saving {
    struct nd_run *worker_of; /* the run that saves what this worker of it has; NULL */
    struct nd_save *save;     /* the one under way, or NULL */
    int64_t step;             /* of the checkpoint written last, or the restored one; -1: none */
    char state_sha256[65];    /* of the checkpoint written last; rank 0 */
    int64_t failures;         /* in a row */
    bool warned_of_latest;
    double ms;  /* spent on saving since they were asked for */
    void *copy; /* host memory that background saves read, where they need a copy */
    size_t copy_bytes;
    struct nd_snapshots *snapshots; /* those in memory; NULL: none are looked for */
    struct nd_save *snapshot;       /* the one being written, or NULL */
} nd_saving;

typedef struct nd_rounds nd_rounds; /* train/rounds.h */

typedef struct nd_run {
    nd_config config;
    nd_comm *comm; /* not owned */
    nd_log log;
    nd_early_log early_log;
    nd_backend *backend;
    nd_arena arenas[ND_MEMORY_COUNT];

    nd_model *model;
    nd_ownership own;
    nd_optimizer *optimizer;
    nd_view *masters; /* [params.count] whole or this rank's rows; data NULL: owns nothing of it */
    nd_gradient_reducer *reducer;
    nd_weight_gather gather;
    nd_rounds *rounds; /* with [dist] workers or sync_every; NULL: this run is its only worker */
    nd_reference_model *reference; /* with collider_rule = excess */
    nd_replay *replay;             /* of micro-batches; NULL: their ops run one by one */
    nd_view loss_sums;     /* f64 [local_micro_batches, nd_model_loss_sums] in backend memory */
    int64_t micro_batches; /* of a step, over all ranks */
    int64_t local_micro_batches; /* of this rank: a contiguous part */

    nd_run_data data;
    nd_position position; /* restored whole, else changed by train/position.c alone */
    nd_health health;     /* restored whole, else changed by train/health.c alone */
    nd_identity identity;
    nd_run_start start;
    nd_restored restored;
    nd_saving saving;
    nd_slow_rank *slow; /* [comm size] how ranks' steps compare; changed by train/step.c */
} nd_run;

/* Builds everything but the loader, from a checked configuration: opens the data, reserves all memory,
 * initialises masters from the seed and gathers weights. A backend already set in `run` is used, and the
 * run owns it. Collective. */
nd_status nd_run_create(const nd_config *config, nd_comm *comm, nd_run *run);

/* The part of nd_run_create that needs neither data nor memory: parameter table and owners. From
 * run->config, run->backend and run->comm, of which only rank and size are used: `plan` passes ranks that do not
 * exist. */
nd_status nd_run_prepare(nd_run *run);

/* The same for a run without rounds, or one of the workers of another (train/rounds.h). */
nd_status nd_run_prepare_worker(nd_run *run);

/* Shares the step's micro-batches among the ranks. Errors: ND_ECONFIG where that cannot be. */
nd_status nd_run_split_batch(nd_run *run);

/* total_steps, or fewer when `epochs` passes over the data end sooner. Counted in samples, because earlier steps may
 * have had another batch_size. The same at any step of the run. */
int64_t nd_run_last_step(const nd_run *run);

/* The rows of a parameter's master and state that this rank has; count 0: none. */
nd_row_span nd_run_owned_rows(const nd_run *run, int64_t index);

/* Options of the run's loader. */
nd_loader_options nd_run_loader_options(const nd_run *run);

/* Starts the loader at the run's position; closes a running one first. */
nd_status nd_run_start_loader(nd_run *run);

/* A save in progress must have been finished or abandoned (train/checkpoint/checkpoint_save.h). */
void nd_run_destroy(nd_run *run);

/* Sends owners' weights to all replicas; `whole`: not as changes of what replicas have. Collective. */
nd_status nd_run_publish_weights(nd_run *run, bool whole);

/* Sends the projector of a matrix, or every projector, from its owner to all ranks. Collective. */
nd_status nd_run_publish_projector(nd_run *run, int64_t index);
nd_status nd_run_publish_projectors(nd_run *run);

/* Drops the rounding errors that formats of the wire left on this rank or in replicas, so that the run continues
 * exactly like one restored from a checkpoint of this moment. Collective. */
nd_status nd_run_reset_error_feedback(nd_run *run);

/* Agrees on a status: ND_OK when all ranks pass ND_OK; else every rank gets the error of the lowest
 * failing rank, marked as shared and naming that rank when there are several. Collective. */
nd_status nd_run_agree(nd_comm *comm, nd_status mine);

/* Marks the error just raised as shared without communication, because every rank raised it from the same
 * numbers. Returns `status`. Not collective. */
nd_status nd_run_same_error(nd_status status);
