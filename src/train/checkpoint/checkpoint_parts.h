/* The state of a save in progress, shared by the files that implement it (checkpoint_save.h). */
#pragma once

#include "train/background.h"
#include "train/checkpoint/checkpoint.h"
#include "train/checkpoint/checkpoint_hdf5.h"
#include "train/checkpoint/checkpoint_save.h"
#include "train/rounds.h"

/* The most tensors of a parameter: the master, and states of the optimizer or the outer step. */
enum { ND_CHECKPOINT_PARTS_MAX = 1 + ND_OPTIMIZER_STATES_MAX + ND_OUTER_STATES_MAX };

/* The status that the caller of a save gets: ND_ECHECKPOINT for errors of paths, files and memory.
 */
static inline nd_status nd_save_error(nd_status status)
{
    return status == ND_EIO || status == ND_ECONFIG || status == ND_ENOMEM ? ND_ECHECKPOINT
                                                                           : status;
}

/* Units with tensors of their own: the run and, with rounds (train/rounds.h), each of K workers. */
static inline int64_t nd_checkpoint_units(const nd_run *run)
{
    return run->rounds ? 1 + run->rounds->workers : 1;
}

/* The rank whose file receives a parameter's tensors of unit `unit` (0: the run, 1 + k: worker k),
 * and whether this rank writes them or its rows of them. */
int nd_checkpoint_writer(const nd_run *run, int64_t unit, int64_t index);
bool nd_checkpoint_writes(const nd_run *run, int64_t unit, int64_t index);

/* What the writer of a tensor reports to all ranks. */
typedef struct nd_written_tensor {
    char part[32]; /* empty: no such tensor */
    int dtype;
    int64_t rows, cols;
    char checksum[ND_SHA256_HEX_SIZE];
} nd_written_tensor;

typedef struct nd_written_file {
    int64_t bytes;
    char sha256[ND_SHA256_HEX_SIZE];
} nd_written_file;

typedef enum nd_save_stage { ND_SAVE_WRITING, ND_SAVE_PUBLISHING } nd_save_stage;

struct nd_save {
    nd_run *run; /* threads read only owned tensors and what training does not change */
    nd_save_stage stage;
    bool background, durable; /* durable: fsync what is written */
    /* a copy of what this rank saves, where the writer cannot read the original; else NULL */
    const char *copy;
    nd_background job;
    nd_checkpoint c; /* the run's state when the save began; rank 0 adds tensors and files */
    char parent[ND_CHECKPOINT_PATH_MAX], temporary[ND_CHECKPOINT_PATH_MAX];
    char final[ND_CHECKPOINT_PATH_MAX];
    /* [params.count][units][ND_CHECKPOINT_PARTS_MAX]: what this rank writes; rank 0 gathers all */
    nd_written_tensor *tensors;
    nd_written_tensor *slices;           /* in snapshots, on rank 0: [ranks][params][parts] */
    nd_written_file summary, *summaries; /* [size] on rank 0 */
    char notes[4096];                    /* lines for the log about publishing; empty: none */
    bool unlinked;                       /* `latest` could not be created */

    pthread_mutex_t mutex; /* guards `written` */
    pthread_cond_t progressed;
    int64_t written; /* parameters before this one may change */
    atomic_bool abandoned;
};

/* Creates a save of the run as it is now: the metadata of its manifest, without tensors. The caller
 * sets the directories. Errors: ND_ENOMEM; *save must be ended with nd_save_stop all the same. */
nd_status nd_save_create(nd_run *run, bool background, nd_save **save);

/* Ends the save's thread after the current tensor, frees the save and sets *save to NULL, which is
 * allowed. */
void nd_save_stop(nd_save **save);

/* Downloads what this rank saves into *copy, for the writer to read while device memory changes.
 * Allocates *copy, of *bytes bytes, when it is NULL; the caller frees it. Errors: ND_ENOMEM. */
nd_status nd_save_copy_owned(nd_run *run, void **copy, size_t *bytes);

/* On rank 0, turns the gathered tables into the lists of s->c: all tensors, and the files of all
 * ranks, with room for two more. */
nd_status nd_save_collect(nd_save *s);

/* The row of a parameter and unit in s->tensors. */
static inline nd_written_tensor *nd_save_row(const nd_save *s, int64_t unit, int64_t index)
{
    const int64_t row = index * nd_checkpoint_units(s->run) + unit;
    return s->tensors + row * ND_CHECKPOINT_PARTS_MAX;
}

/* This rank's tensors of a parameter and unit, named as in a checkpoint; returns their number. */
int nd_checkpoint_parts(const nd_run *run, int64_t unit, int64_t index,
                        nd_optimizer_state parts[ND_CHECKPOINT_PARTS_MAX]);

/* A background job: writes this rank's file in the temporary directory of `save`, an nd_save,
 * fsyncs it if the save is durable, and fills the save's tensors and summary with the checksums.
 * When it has ended, even with an error, all parameters are released to updates. */
nd_status nd_save_write_and_release(void *save);

/* Parameters owned by rows (checkpoint_rows.c). nd_checkpoint_whole_parts: the tensors of the
 * whole parameter, data NULL. nd_checkpoint_row_at: the offset of row `row` in one of them, in
 * bytes (`param->rows`: its end). nd_save_append_rows: writes this rank's rows of the next tensor.
 * nd_save_join_rows: on rank 0, combines the rows once every rank's file is on disk and the
 * summaries are known. */
nd_status nd_checkpoint_whole_parts(const nd_run *run, int64_t index,
                                    nd_optimizer_state parts[ND_CHECKPOINT_PARTS_MAX], int *count);
size_t nd_checkpoint_row_at(const nd_param *param, nd_view part, int64_t row);
nd_status nd_save_append_rows(const nd_save *s, const void *bytes, size_t size);
nd_status nd_save_join_rows(nd_save *s);

/* The same parameters in snapshots, as slices (checkpoint_slices.c). nd_save_slices_max: the most
 * entries they need in the manifest. nd_save_gather_slices: collects the slices of all ranks on
 * rank 0; collective. nd_save_collect_slices: lists them. */
int64_t nd_save_slices_max(const nd_save *s);
nd_status nd_save_gather_slices(nd_save *s);
nd_status nd_save_collect_slices(nd_save *s);

/* Reads bytes [from, from + bytes) of the whole tensor whose first slice is entry `index`; tells
 * whether a slice contains some of these bytes. */
nd_status nd_checkpoint_read_range(const nd_checkpoint *c, int64_t index, size_t from, size_t bytes,
                                   void *out);
bool nd_checkpoint_slice_touches(const nd_checkpoint_tensor *slice, size_t from, size_t bytes);

/* Lists a tensor that `rank` has written in s->c. */
nd_checkpoint_tensor *nd_save_list_tensor(nd_save *s, int64_t index, const nd_written_tensor *w,
                                          int rank);

/* Writes a tensor in host memory and records it in *written, with a SHA-256 if `durable`, else a
 * GMAC. */
nd_status nd_save_write_values(nd_checkpoint_h5 *file, bool durable, const char *param,
                               const nd_optimizer_state *part, const void *host,
                               nd_written_tensor *written);

/* Lets updates change all parameters before `written`. */
void nd_save_release(nd_save *s, int64_t written);

/* Gathers the tables of all owners and the summaries of all files on rank 0. Collective. */
nd_status nd_save_gather(nd_save *s);

/* Publishes the checkpoint: rank 0, once all files, s->tensors and s->summaries are complete. */
nd_status nd_save_publish(nd_save *s);

/* Removes the oldest checkpoints beyond the newest checkpoint_keep, and remains of crashes. Removes
 * only what the program wrote and knows to be older than the one just written. Failing to remove
 * something is a warning. Rank 0. */
void nd_save_rotate(nd_save *s);

/* Adds a line for the log, which the training thread writes. */
void nd_save_note(nd_save *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
