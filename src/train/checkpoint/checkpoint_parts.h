/* A checkpoint that is being saved, between the files that do it (checkpoint_save.h says how). */
#pragma once

#include "train/background.h"
#include "train/checkpoint/checkpoint.h"
#include "train/checkpoint/checkpoint_hdf5.h"
#include "train/checkpoint/checkpoint_save.h"
#include "train/rounds.h"

/* A parameter's tensors: the master and the optimizer's states, or those of the outer step. */
enum { ND_CHECKPOINT_PARTS_MAX = 1 + ND_OPTIMIZER_STATES_MAX + ND_OUTER_STATES_MAX };

/* Errors of files and memory while saving are errors of the checkpoint or snapshot to the caller. */
static inline nd_status nd_save_error(nd_status status)
{
    return status == ND_EIO || status == ND_ENOMEM ? ND_ECHECKPOINT : status;
}

/* Who has such tensors: the run, and with rounds (train/rounds.h) also each of K workers. */
static inline int64_t nd_checkpoint_units(const nd_run *run)
{
    return run->rounds ? 1 + run->rounds->workers : 1;
}

/* The rank in whose file a parameter's tensors of unit `unit` (0 the run, 1 + k worker k) come to lie, and whether this
 * rank writes them or its rows of them. */
int nd_checkpoint_writer(const nd_run *run, int64_t unit, int64_t index);
bool nd_checkpoint_writes(const nd_run *run, int64_t unit, int64_t index);

/* What an owner tells everyone about a tensor it wrote. */
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
    nd_run *run; /* threads read only what training does not change, and owned tensors */
    nd_save_stage stage;
    bool background, durable; /* durable: what is written is fsynced */
    const char *copy; /* of what this rank owns, where the writer cannot read it; else NULL */
    nd_background job;
    nd_checkpoint c; /* what the run was when the save began; rank 0 adds tensors and files */
    char parent[ND_CHECKPOINT_PATH_MAX], temporary[ND_CHECKPOINT_PATH_MAX];
    char final[ND_CHECKPOINT_PATH_MAX];
    /* [params.count][units][ND_CHECKPOINT_PARTS_MAX]: those this rank writes; on rank 0, once gathered, all */
    nd_written_tensor *tensors;
    nd_written_tensor *slices; /* of snapshots, on rank 0: of all ranks, parameters and parts */
    nd_written_file summary, *summaries; /* [size] on rank 0 */
    char notes[4096];                    /* of the publishing, for the log: lines; empty: none */
    bool unlinked;                       /* `latest` could not be made */

    pthread_mutex_t mutex; /* guards `written` */
    pthread_cond_t moved;
    int64_t written; /* parameters before this one may change */
    atomic_bool given_up;
};

/* A save of the run as it is now: what manifests say of it, no tensors yet. The caller gives the
 * directories. Errors: ND_ENOMEM; *save is to be destroyed all the same. */
nd_status nd_save_create(nd_run *run, bool background, nd_save **save);

/* Its thread must have ended. NULL is fine. */
void nd_save_destroy(nd_save *save);

/* Downloads what this rank owns into *copy, of *bytes, which is allocated where it is NULL and stays the
 * caller's: what the writer reads while device memory changes. Errors: ND_ENOMEM. */
nd_status nd_save_copy_owned(nd_run *run, void **copy, size_t *bytes);

/* On rank 0 the gathered tables as the lists of s->c: all tensors, and the files of all ranks, with room
 * for two more. */
nd_status nd_save_collect(nd_save *s);

/* The row of s->tensors of a parameter and unit. */
static inline nd_written_tensor *nd_save_row(const nd_save *s, int64_t unit, int64_t index)
{
    const int64_t row = index * nd_checkpoint_units(s->run) + unit;
    return s->tensors + row * ND_CHECKPOINT_PARTS_MAX;
}

/* The tensors of a parameter and unit that this rank has, named as in a checkpoint; returns how many. */
int nd_checkpoint_parts(const nd_run *run, int64_t unit, int64_t index,
                        nd_optimizer_state parts[ND_CHECKPOINT_PARTS_MAX]);

/* How many workers the run had that wrote the checkpoint; 0: none (workers = 1, sync_every = 1). And whether this run
 * can go on from it: it has as many, or the checkpoint none. Not collective; the same on all ranks. Errors:
 * ND_ECHECKPOINT naming the checkpoint, both numbers and what to do. */
int64_t nd_checkpoint_workers(const nd_checkpoint *c);
nd_status nd_checkpoint_check_workers(const nd_run *run, const nd_checkpoint *c);

/* Reads the manifest alone into a zeroed checkpoint, which the caller closes also after an error. */
nd_status nd_checkpoint_open_manifest(const char *directory, nd_checkpoint *checkpoint);

nd_status nd_checkpoint_join(char *path, size_t size, const char *directory, const char *name);

/* Writes, fsyncs where durable, and hashes this rank's file in ->temporary of `save`, an nd_save: fills its
 * tensors and summary. A background job; updates have everything once it has ended, also when it failed. */
nd_status nd_save_write_and_release(void *save);

/* Of checkpoint_rows.c, for parameters that are owned by rows: the tensors of the whole parameter, data NULL; where
 * row `row` of it begins in one of them, in bytes (`param->rows`: where it ends); writes what this rank has of the
 * next one; and, on rank 0 after every rank's file is on disk and the summaries are known, puts them together. */
nd_status nd_checkpoint_whole_parts(const nd_run *run, int64_t index,
                                    nd_optimizer_state parts[ND_CHECKPOINT_PARTS_MAX], int *count);
size_t nd_checkpoint_row_at(const nd_param *param, nd_view part, int64_t row);
nd_status nd_save_append_rows(const nd_save *s, const void *bytes, size_t size);
nd_status nd_save_join_rows(nd_save *s);

/* Of checkpoint_slices.c, for the same parameters in snapshots: how many entries of the manifest they may take;
 * collective: rank 0 learns of all ranks' slices; and lists them. */
int64_t nd_save_slices_max(const nd_save *s);
nd_status nd_save_gather_slices(nd_save *s);
nd_status nd_save_collect_slices(nd_save *s);

/* Bytes [from, from + bytes) of the whole tensor that entry `index` is the first slice of; and whether a slice has
 * some of them. */
nd_status nd_checkpoint_read_range(const nd_checkpoint *c, int64_t index, size_t from, size_t bytes,
                                   void *out);
bool nd_checkpoint_slice_touches(const nd_checkpoint_tensor *slice, size_t from, size_t bytes);

/* Writes a tensor, in host memory, and notes what was written; `durable` decides about its checksum. */
nd_status nd_save_write_values(nd_checkpoint_h5 *file, bool durable, const char *param,
                               const nd_optimizer_state *part, const void *host,
                               nd_written_tensor *written);

/* Releases all parameters before `written` to the update. */
void nd_save_release(nd_save *s, int64_t written);

/* Collective. Rank 0 learns of every tensor from its owner, and the summary of every file. */
nd_status nd_save_gather(nd_save *s);

/* Rank 0, after every rank's file is on disk and s->tensors and s->summaries are known. */
nd_status nd_save_publish(nd_save *s);

/* Removes the oldest checkpoints beyond the newest checkpoint_keep, and what crashes left. Only what the
 * program wrote and knows to be older than the one just written goes. What cannot be removed is only a
 * warning. Rank 0. */
void nd_save_rotate(nd_save *s);

/* A line for the log, which the thread that trains writes. */
void nd_save_note(nd_save *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
