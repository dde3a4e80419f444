/* Checkpoints: directories that hold global tensors, each in exactly one file, with a checksum a
 * tensor. Nothing in them depends on the number of ranks but which file a tensor lies in.
 *
 *   step_00001000/manifest.json   the list of files and tensors, and their checksums (docs/run_files.md)
 *   step_00001000/config.ini      the effective configuration
 *   step_00001000/tokenizer.model the tokenizer, when the data has one
 *   step_00001000/rank_0000.h5    /masters/<name>, /optimizer/<name>/<state>
 *   latest -> step_00001000
 *
 * Durability. Everything is written into .tmp_step_00001000; every file is fsynced, then the
 * directory; then it is renamed and the parent fsynced; only then is `latest` moved, the same way. So
 * at any moment `latest` names a whole checkpoint or is absent, and a directory of such a name
 * (checkpoint_names.h) is whole: one that is removed is first renamed to .tmp_step_00001000. */
#pragma once

#include "core/base/gmac.h"
#include "core/base/sha256.h"
#include "core/base/view.h"
#include "train/checkpoint/checkpoint_names.h"
#include "train/run.h"

enum { ND_CHECKPOINT_FORMAT_VERSION = 1, ND_CHECKPOINT_PATH_MAX = 4096 };

typedef struct nd_checkpoint_tensor {
    char param[ND_PARAM_NAME_MAX]; /* "blk.0.attn_q.weight" */
    char part[32]; /* "master", or of the optimizer: "momentum", "moment1_codes" ... */
    char file[32]; /* "rank_0000.h5" */
    nd_dtype dtype;
    int64_t rows, cols;
    int64_t whole_rows, whole_cols, from; /* of a slice: the whole, and its offset there in bytes */
    char checksum
        [ND_SHA256_HEX_SIZE]; /* of the raw little-endian values: SHA-256, of a snapshot GMAC */
} nd_checkpoint_tensor;

typedef struct nd_checkpoint_file {
    char name[32];
    int64_t bytes;
    char sha256[ND_SHA256_HEX_SIZE]; /* "": of a snapshot, whose tensors have theirs */
    char *path; /* where it lies, owned; NULL: under its name in the checkpoint's directory */
} nd_checkpoint_file;

typedef struct nd_checkpoint {
    char directory[ND_CHECKPOINT_PATH_MAX];
    int64_t step, tokens, restarts, next_sample;
    int64_t data_start; /* the first sample of the data that it was trained on last */
    nd_identity identity;
    nd_health health; /* what of it a run remembers */
    bool has_tokenizer;
    char approximate[128]; /* formats of the wire that rounded (train/approximations.h); "": none */
    nd_checkpoint_tensor *tensors;
    int64_t tensor_count;
    nd_checkpoint_file *files;
    int64_t file_count;
    char state_sha256[ND_SHA256_HEX_SIZE]; /* of all tensors' checksums in order */
} nd_checkpoint;

/* The run's directory of checkpoints: [logging] checkpoint_dir, else <run_dir>/checkpoints. */
void nd_checkpoint_directory(const nd_config *config, char *path, size_t size);

/* The checkpoint that `path` means: itself; or of a run, or a directory of checkpoints, the one that latest
 * names, or without a usable latest the newest complete one. A run's checkpoints are looked for where its
 * config.ini says, and must be of the run that it names. Every command that takes a checkpoint asks here.
 * `log` (may be NULL) is told which are passed over. Errors: ND_ECHECKPOINT when there is none, where a
 * directory or that config.ini cannot be read, or where what is found is of another run. */
nd_status nd_checkpoint_resolve(const char *path, nd_log *log, char out[ND_CHECKPOINT_PATH_MAX]);

/* The same, but `out` is empty where there is none. */
nd_status nd_checkpoint_search(const char *path, nd_log *log, char out[ND_CHECKPOINT_PATH_MAX]);

/* Opens the manifest and checks that every file is there with its size and, with `deep`, that every
 * byte of every file has its checksum. Errors: ND_ECHECKPOINT naming what is damaged; ND_EIO where the
 * system does not let it be read, which says nothing about it. */
nd_status nd_checkpoint_open(const char *directory, bool deep, nd_checkpoint *checkpoint);

/* The same by each rank's own path, which must lead to one checkpoint. Collective. Errors: the same on all
 * ranks, also where a rank reaches another one; nothing is open then. */
nd_status nd_checkpoint_open_on_all(nd_comm *comm, const char *directory, bool deep,
                                    nd_checkpoint *c);
void nd_checkpoint_close(nd_checkpoint *checkpoint);

/* Index of a tensor, -1 when there is none. */
int64_t nd_checkpoint_find(const nd_checkpoint *checkpoint, const char *param, const char *part);

/* Reads tensor `index` into `values` (host memory of its size) and checks its checksum. */
nd_status nd_checkpoint_read(const nd_checkpoint *checkpoint, int64_t index, void *values);

/* The newest complete checkpoint under `directory`, checked deeply; damaged ones on the way are named in
 * the log. `path` is empty when there is none at all. Not collective. Errors: ND_ECHECKPOINT when
 * there are checkpoints and every one is damaged, or where one cannot be looked at. */
nd_status nd_checkpoint_newest(const char *directory, nd_log *log,
                               char path[ND_CHECKPOINT_PATH_MAX]);

/* What exists under the name of a step. */
typedef struct nd_checkpoint_standing {
    bool of_step; /* its manifest is of this step: damaged or not, it is that checkpoint */
    bool own;     /* and lists every file that is there: the program wrote all of it */
    bool whole;   /* and those files have their sizes */
} nd_checkpoint_standing;

/* Errors: ND_ECHECKPOINT where that cannot be looked at. */
nd_status nd_checkpoint_look(const char *directory, int64_t step, nd_checkpoint_standing *standing);

/* Renames checkpoints of steps after `step`, damaged or of a branch that is given up, to
 * superseded_step_*, so that they are neither resumed nor counted, and moves `latest` back; all or none.
 * What was superseded before stays under its name. Not collective. Errors: ND_ECHECKPOINT. */
nd_status nd_checkpoint_supersede(const char *directory, int64_t step, nd_log *log);

/* Renames one checkpoint as nd_checkpoint_supersede does. `name` receives its new name. */
nd_status nd_checkpoint_supersede_one(const char *directory, int64_t step,
                                      char name[ND_CHECKPOINT_NAME_MAX]);

/* Puts a checkpoint back that a crash left half replaced. Not collective. Errors: ND_ECHECKPOINT. */
nd_status nd_checkpoint_recover(const char *directory);

/* Fills masters, optimizer state, step and tokens of a run from a checkpoint of the same model, on any
 * number of ranks, and publishes the weights. Collective. Errors: ND_ECHECKPOINT naming the tensor,
 * its shape there and the shape expected; ND_EDATA when the data's tokenizer is another. Keys that
 * changed since are named in the log. */
nd_status nd_checkpoint_restore(nd_run *run, const char *directory);

/* The same from an open one, of which each rank can read the files that hold what it owns. */
nd_status nd_checkpoint_restore_open(nd_run *run, const nd_checkpoint *checkpoint);

/* What `info DIR` prints. */
nd_status nd_checkpoint_print(const char *directory, bool verify, FILE *out);
