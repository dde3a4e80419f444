/* A checkpoint that is being saved, between the files that do it (checkpoint_save.h says how). */
#pragma once

#include "train/background.h"
#include "train/checkpoint/checkpoint.h"
#include "train/checkpoint/checkpoint_hdf5.h"
#include "train/checkpoint/checkpoint_save.h"

/* A parameter's tensors: the master and the optimizer's states. */
enum { ND_CHECKPOINT_PARTS_MAX = 1 + ND_OPTIMIZER_STATES_MAX };

/* What an owner tells everyone about a tensor it wrote. */
typedef struct nd_written_tensor {
    char part[32]; /* empty: no such tensor */
    int dtype;
    int64_t rows, cols;
    char sha256[ND_SHA256_HEX_SIZE];
} nd_written_tensor;

typedef struct nd_written_file {
    int64_t bytes;
    char sha256[ND_SHA256_HEX_SIZE];
} nd_written_file;

typedef enum nd_save_stage { ND_SAVE_WRITING, ND_SAVE_PUBLISHING } nd_save_stage;

struct nd_save {
    nd_run
        *run; /* a thread reads only what stays the same while the run trains, and owned tensors */
    nd_save_stage stage;
    bool background;
    nd_background job;
    nd_checkpoint c; /* what the run was when the save began; rank 0 adds tensors and files */
    char parent[ND_CHECKPOINT_PATH_MAX], temporary[ND_CHECKPOINT_PATH_MAX];
    char final[ND_CHECKPOINT_PATH_MAX];
    nd_written_tensor
        *tensors; /* [params.count * ND_CHECKPOINT_PARTS_MAX]: those this rank owns; on
                                 * rank 0, once they are gathered, all */
    nd_written_file summary, *summaries; /* [size] on rank 0 */
    char notes[4096];                    /* of the publishing, for the log: lines; empty: none */
    bool unlinked;                       /* `latest` could not be made */

    pthread_mutex_t mutex; /* guards `written` */
    pthread_cond_t moved;
    int64_t written; /* parameters before this one may change */
    atomic_bool given_up;
};

/* The tensors of an owned parameter; returns how many. */
bool nd_checkpoint_saves(const nd_run *run, int64_t index);
int nd_checkpoint_parts(const nd_run *run, int64_t index,
                        nd_optimizer_state parts[ND_CHECKPOINT_PARTS_MAX]);

/* Reads the manifest alone into a zeroed checkpoint, which the caller closes also after an error. */
nd_status nd_checkpoint_open_manifest(const char *directory, nd_checkpoint *checkpoint);

nd_status nd_checkpoint_join(char *path, size_t size, const char *directory, const char *name);

/* Writes, fsyncs and hashes this rank's file in s->temporary: fills s->tensors and s->summary. */
nd_status nd_save_write_rank_file(nd_save *s);

/* Of checkpoint_rows.c, for parameters that are owned by rows: the tensors of the whole parameter, data NULL; where
 * row `row` of it begins in one of them, in bytes (`param->rows`: where it ends); writes what this rank has of the
 * next one; and, on rank 0 after every rank's file is on disk and the summaries are known, puts them together. */
nd_status nd_checkpoint_whole_parts(const nd_run *run, int64_t index,
                                    nd_optimizer_state parts[ND_CHECKPOINT_PARTS_MAX], int *count);
size_t nd_checkpoint_row_at(const nd_param *param, nd_view part, int64_t row);
nd_status nd_save_append_rows(const nd_save *s, const void *bytes, size_t size);
nd_status nd_save_join_rows(nd_save *s);

/* Writes a tensor, in host memory, and notes what was written. */
nd_status nd_save_write_values(nd_checkpoint_h5 *file, const char *param,
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
