/* A run: everything a training process holds, passed down to whoever needs it. */
#ifndef ND_TRAIN_RUN_H
#define ND_TRAIN_RUN_H

#include "core/base/log.h"
#include "core/config/config.h"
#include "core/model/model.h"
#include "data/dataset.h"
#include "data/loader.h"
#include "dist/comm.h"
#include "dist/ownership.h"
#include "dist/weight_gather.h"
#include "optim/optimizer.h"
#include "train/health.h"
#include "train/identity.h"
#include "train/memory.h"
#include "train/replay.h"

enum { ND_GRADIENT_SLOTS_MAX = 128 };

typedef struct nd_run {
    nd_config config;
    nd_comm *comm; /* not owned */
    nd_log log;
    char *early_log; /* what the log said before RUN/training.log was opened; rank 0 */
    size_t early_log_bytes;
    nd_backend *backend;
    nd_arena arenas[ND_MEMORY_COUNT];
    size_t resident_at_start; /* before the first arena: program and libraries */

    nd_model *model;
    nd_ownership own;
    nd_optimizer *optimizer;
    nd_weight_gather gather;
    nd_view *masters; /* [params.count]; data NULL where this rank is not the owner */

    /* The way of gradients (train/gradient_reducer.h). Buffers by slot of the summation tree
     * (core/base/sum_tree.h): [slot][param], projected where GaLore projects; sketches [slot], a row for
     * each matrix that gets a new subspace in a step. */
    nd_projectors *projectors; /* the optimizer's */
    int64_t projected;         /* how many parameters are projected */
    bool travel_projected;     /* and their gradients are so on their way to owners */
    bool immediate;            /* layers are updated during the backward pass */
    bool overlapped; /* gradients travel during the backward pass of the last micro-batch */
    nd_view *gradients[ND_GRADIENT_SLOTS_MAX];
    nd_view sketches[ND_GRADIENT_SLOTS_MAX];
    int gradient_slots;
    nd_comm_piece *pieces; /* [params.count] what travels, then a place for each sketch of a step */
    float **piece_slots;   /* [of pieces][gradient_slots] */
    nd_view *written;      /* [params.count] where the backward pass writes, if not into a slot */
    nd_view
        *sums; /* [params.count] the reduced gradient of owned parameters, in one of the slots */
    nd_view *sketch_sums; /* [params.count] as sums; data NULL where there is no sketch */
    nd_view *residuals;   /* [params.count] of train/error_feedback.h; data NULL: none */
    double *squares;      /* [params.count] squared norms of this step's gradients */
    nd_view norms;        /* f64 [1, 2 params.count] in backend memory: those this rank computes */
    nd_replay *replay;    /* of micro-batches; NULL: their ops run one by one */
    nd_view loss_sums;    /* f64 [local_micro_batches, nd_model_loss_sums] in backend memory */

    nd_dataset *train, *val; /* val NULL when no held-out shard holds a window */
    int64_t short_held_out;  /* tokens of such a held-out split */
    void *tokenizer;         /* of the data, for checkpoints; rank 0; NULL when it has none */
    size_t tokenizer_bytes;
    nd_loader *loader;
    int64_t micro_batches;       /* of a step, over all ranks */
    int64_t local_micro_batches; /* of this rank: a contiguous part */

    int64_t step;        /* completed steps */
    int64_t tokens;      /* trained on so far */
    int64_t next_sample; /* the loader's whole state: first sample of the next step */
    int64_t data_start;  /* the first sample of the data at hand: epochs are counted from there */
    int64_t restarts;
    bool new_data; /* in: a checkpoint of other data may go on (train/resume_check.h) */
    nd_identity identity;
    nd_health health;
    char state_sha256[65]; /* of the checkpoint written last; rank 0 */
    bool sets_aside;       /* what its directory holds, although it goes on from a checkpoint */
    bool restored;         /* from a checkpoint */
    int64_t restored_step; /* that checkpoint's; 0: none */
    bool taken;            /* the run's directory is this run's (train/run_directory.h) */
    int64_t saved_step;    /* that checkpoint's, or the restored one's; -1: none */
    int64_t failed_saves;  /* in a row */
    bool warned_of_latest;
    struct nd_save *save; /* the one under way, or NULL (train/checkpoint/checkpoint_save.h) */
    double save_ms;       /* spent on saving since the last line of the metrics */
    void *saved_copy;     /* host memory that background saves read, where they need a copy */
    size_t saved_copy_bytes;
    double peak_flops; /* of one rank's dense products, measured at start; 0 unknown */
} nd_run;

/* Builds everything but the loader, from a checked configuration: opens the data, takes all memory,
 * initialises masters from the seed and gathers weights. A backend that stands in `run` already is
 * used, and owned from here on. Collective. */
nd_status nd_run_create(const nd_config *config, nd_comm *comm, nd_run *run);

/* The part of nd_run_create that needs neither data nor memory: parameter table and owners. From
 * run->config, run->backend and run->comm, of which only rank and size are used: `plan` passes ranks that do not
 * exist. */
nd_status nd_run_prepare(nd_run *run);

/* What the run's loader is started with. */
nd_loader_options nd_run_loader_options(const nd_run *run);

/* Starts the loader at the run's step. */
nd_status nd_run_start_loader(nd_run *run);

void nd_run_destroy(nd_run *run);

/* Sends owners' weights to all replicas; `whole`: not as changes of what replicas have. Collective. */
nd_status nd_run_publish_weights(nd_run *run, bool whole);

/* What rounding on the wire left with this rank or in replicas is dropped, so that the run goes on as one
 * does that is restored from a checkpoint of this moment. Collective. */
nd_status nd_run_reset_error_feedback(nd_run *run);

/* Agrees on a status: ND_OK when all ranks pass ND_OK; else every rank gets the error of the lowest
 * failing rank, marked as shared and naming that rank when there are several. Collective. */
nd_status nd_run_agree(nd_comm *comm, nd_status mine);

/* Marks the error just raised as one that every rank holds without having been told, because all raised
 * it from the same numbers. Returns `status`. Not collective. */
nd_status nd_run_same_error(nd_status status);

#endif
