/* A run: the state of a training process, passed down to every function that needs it. */
#pragma once

#include "core/base/log.h"
#include "core/config/config.h"
#include "core/model/model.h"
#include "data/dataset.h"
#include "data/loader.h"
#include "dist/comm.h"
#include "dist/ownership.h"
#include "dist/weights/weight_gather.h"
#include "train/gradients/gradient_reducer.h"
#include "train/health.h"
#include "train/log/rank_times.h"
#include "train/reference_model.h"
#include "train/replay.h"
#include "train/run/identity.h"
#include "train/run/memory.h"
#include "train/run/position.h"

/* The data. Written by run_create.c. */
typedef struct nd_run_data {
    nd_dataset *train, *val; /* val: NULL when no held-out shard contains a window */
    int64_t short_held_out;  /* tokens of a held-out split that is too short for a window */
    void *tokenizer;         /* of the data, for checkpoints; rank 0; NULL when there is none */
    size_t tokenizer_bytes;
    nd_loader *loader;
} nd_run_data;

/* How the run began. Written by train.c, run_memory.c and run_directory.c. */
typedef struct nd_run_start {
    char *log; /* text from before RUN/training.log was opened; rank 0 */
    size_t log_bytes;
    bool new_data;      /* resume although the data has changed (train/resume_check.h) */
    bool sets_aside;    /* set an earlier run aside although this one resumes a checkpoint */
    bool has_directory; /* the run's directory belongs to this run (train/run/run_directory.h) */
    size_t resident;    /* resident bytes before the first arena: program and libraries */
    double peak_flops;  /* of one rank's dense products, measured; 0: unknown */
} nd_run_start;

/* The checkpoint that the run resumed. Written by checkpoint/checkpoint_restore.c and resume.c. */
typedef struct nd_restored {
    bool any;
    int64_t step; /* 0 without one */
    char *base;   /* rank 0: its path if it is not among the run's own; else NULL */
} nd_restored;

/* Saving. Written by checkpoint/; the last two fields by snapshot/. */
typedef struct nd_saving {
    struct nd_run *worker_of; /* the run whose checkpoints contain this worker, or NULL */
    struct nd_save *save;     /* the save in progress, or NULL */
    int64_t step;             /* of the last checkpoint written or restored; -1: none */
    char state_sha256[65];    /* of the last checkpoint written; rank 0 */
    int64_t failures;         /* consecutive */
    bool warned_of_latest;
    double ms;  /* time spent on saving since it was last queried */
    void *copy; /* host memory that background saves read, where they need a copy */
    size_t copy_bytes;
    struct nd_run_locks *locks; /* rank 0 of a training run: confirmed before each save; or NULL */
    struct nd_snapshots *snapshots; /* snapshots in memory; NULL: not used */
    struct nd_save *snapshot;       /* the snapshot in progress, or NULL */
} nd_saving;

/* How long steps take. Written by step.c. */
typedef struct nd_run_timing {
    nd_slow_rank *slow; /* [comm size] how ranks' steps compare */
    double update_ms;   /* of the last step, the longest of any rank */
} nd_run_timing;

typedef struct nd_rounds nd_rounds; /* train/rounds.h */

typedef struct nd_run {
    nd_config config;
    nd_comm *comm; /* not owned */
    nd_log log;
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
    int64_t local_micro_batches; /* on this rank: a contiguous part */

    nd_run_data data;
    nd_position position; /* as a whole by a restore and, of workers, rounds.c; else position.c */
    nd_health health;     /* restored as a whole, else changed only by train/health.c */
    nd_identity identity;
    nd_run_start start;
    nd_restored restored;
    nd_saving saving;
    nd_run_timing timing;
} nd_run;

/* Builds everything except the loader from a checked configuration: opens the data, reserves all
 * memory, initializes masters from the seed and gathers weights. Uses run->backend if that is set;
 * the run owns it. With [dist] group_ranks = 0 all ranks are one group. The caller destroys the
 * run. Collective. */
nd_status nd_run_create(const nd_config *config, nd_comm *comm, nd_run *run);

/* The two parts of nd_run_create, between which nd_run_choose_groups may choose groups: up to the
 * backend, attached to `comm`; and the rest. Collective. */
nd_status nd_run_attach(const nd_config *config, nd_comm *comm, nd_run *run);
nd_status nd_run_build(nd_run *run);

/* The part of nd_run_create that needs neither data nor memory: the parameter table and owners.
 * Uses run->config, run->backend, and only rank and size of run->comm, which `plan` makes up. */
nd_status nd_run_prepare(nd_run *run);

/* The last step: total_steps, or an earlier one where `epochs` passes over the data end, counted in
 * samples because batch_size may have changed. The same at any step of the run. */
int64_t nd_run_last_step(const nd_run *run);

/* The rows of a parameter's master and state that this rank owns; count 0: none. */
nd_row_span nd_run_owned_rows(const nd_run *run, int64_t index);

/* Options of the run's loader. */
nd_loader_options nd_run_loader_options(const nd_run *run);

/* Bytes of the batches that it will hold. */
size_t nd_run_loader_bytes(const nd_run *run);

/* Starts the loader at the run's position, after closing a running one. */
nd_status nd_run_start_loader(nd_run *run);

/* A save in progress must be finished or abandoned (checkpoint_save.h). Not collective. */
void nd_run_destroy(nd_run *run);

/* Sends the owners' weights to all replicas; `whole`: not as changes. Collective. */
nd_status nd_run_publish_weights(nd_run *run, bool whole);

/* Sends a weight whose master is final before the others, where run->gather.ahead. Collective. */
nd_status nd_run_send_weight(nd_run *run, int64_t index);

/* Begins to send the projector of a matrix from its owner to all ranks; run->comm finishes it.
 * Collective. */
nd_status nd_run_send_projector(nd_run *run, int64_t index);
