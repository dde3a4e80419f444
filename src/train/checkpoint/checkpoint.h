/* Checkpoints: directories of global tensors, each in exactly one file, with a checksum per tensor.
 * Only the assignment of tensors to files depends on the number of ranks.
 *
 *   step_00001000/manifest.json   files, tensors and their checksums (docs/run_files.md)
 *   step_00001000/config.ini      the effective configuration
 *   step_00001000/tokenizer.model the tokenizer, when the data has one
 *   step_00001000/rank_0000.h5    /masters/<name>, /optimizer/<name>/<state>
 *   latest -> step_00001000
 *
 * Durability. Everything is written to .tmp_step_00001000; every file is fsynced, then the
 * directory; then it is renamed and the parent fsynced; only then is `latest` replaced, in the same
 * way. So `latest` always names a complete checkpoint or is absent, and a directory with such a
 * name (checkpoint_names.h) is complete: before it is removed, it is renamed
 * to .tmp_step_00001000. */
#pragma once

#include "core/base/gmac.h"
#include "core/base/log.h"
#include "core/base/sha256.h"
#include "core/base/view.h"
#include "core/model/params.h"
#include "train/checkpoint/checkpoint_names.h"
#include "train/health.h"
#include "train/run/identity.h"

typedef struct nd_run nd_run; /* train/run/run.h */

enum { ND_CHECKPOINT_FORMAT_VERSION = 1 };

typedef struct nd_checkpoint_tensor {
    char param[ND_PARAM_NAME_MAX]; /* "blk.0.attn_q.weight" */
    char part[32]; /* "master", or of the optimizer "momentum", "moment1_codes" ... */
    char file[32]; /* "rank_0000.h5" */
    nd_dtype dtype;
    int64_t rows, cols;
    /* of a slice: shape of the whole tensor, and the slice's offset in it in bytes */
    int64_t whole_rows, whole_cols, from;
    /* of the raw little-endian values: SHA-256, in a snapshot GMAC */
    char checksum[ND_SHA256_HEX_SIZE];
} nd_checkpoint_tensor;

typedef struct nd_checkpoint_file {
    char name[32];
    int64_t bytes;
    char sha256[ND_SHA256_HEX_SIZE]; /* "" for ranks' files in a snapshot: their tensors have one */
    char *path;                      /* owned; NULL: `name` in the checkpoint's directory */
} nd_checkpoint_file;

typedef struct nd_checkpoint {
    char directory[ND_CHECKPOINT_PATH_MAX];
    int64_t step, tokens, restarts, next_sample;
    int64_t data_start; /* the first sample of the data that the run trained on last */
    nd_identity identity;
    nd_health health; /* the part of it that restoring sets */
    bool has_tokenizer;
    char approximate[128]; /* wire formats that rounded (train/approximations.h); "": none */
    nd_checkpoint_tensor *tensors;
    int64_t tensor_count;
    nd_checkpoint_file *files;
    int64_t file_count;
    char state_sha256[ND_SHA256_HEX_SIZE]; /* over the checksums of all tensors in order */
} nd_checkpoint;

/* Finds the checkpoint that `path` refers to: a checkpoint itself; for a run or a directory of
 * checkpoints the one that `latest` names, by its own name, since a run that trains moves `latest`
 * on; without a usable `latest` the newest complete one.
 * The checkpoints of a run are in the directory that its config.ini names and must belong to the
 * run that it names. Every command that takes a checkpoint uses this function. Logs skipped
 * checkpoints to `log` (may be NULL). Errors: ND_ECHECKPOINT when there is none, when a directory
 * or that config.ini cannot be read, or when the checkpoint belongs to another run. */
nd_status nd_checkpoint_resolve(const char *path, nd_log *log, char out[ND_CHECKPOINT_PATH_MAX]);

/* The same, but `out` is empty when there is none. */
nd_status nd_checkpoint_search(const char *path, char out[ND_CHECKPOINT_PATH_MAX]);

/* Opens the manifest and checks that every file exists with its size and, with `deep`, that every
 * file has its checksum. The caller closes it. Errors: ND_ECHECKPOINT naming what is damaged;
 * ND_EIO where the system cannot read it, which does not mean that it is damaged. */
nd_status nd_checkpoint_open(const char *directory, bool deep, nd_checkpoint *checkpoint);

/* Opens a checkpoint on all ranks, each by its own path. Collective. Errors: the same on all ranks,
 * also when a rank sees another checkpoint; nothing is open then. */
nd_status nd_checkpoint_open_on_all(nd_comm *comm, const char *directory, bool deep,
                                    nd_checkpoint *c);

/* For commands that read what a run which trains may remove: after an error, whether the checkpoint
 * is no longer there, so that resolving again may find a newer one; and the error when it does not
 * help. */
bool nd_checkpoint_gone(const char *directory);
nd_status nd_checkpoint_fail_gone(const char *directory);

/* Reads only the manifest into a zeroed checkpoint, which the caller closes even after an error. */
nd_status nd_checkpoint_open_manifest(const char *directory, nd_checkpoint *checkpoint);
void nd_checkpoint_close(nd_checkpoint *checkpoint);

/* Whether the manifest lists a file of this name. */
bool nd_checkpoint_lists(const nd_checkpoint *checkpoint, const char *name);

/* The index of a tensor, -1 when there is none. */
int64_t nd_checkpoint_find(const nd_checkpoint *checkpoint, const char *param, const char *part);

/* Reads tensor `index` into `values` (host memory of its size) and checks its checksum. Errors:
 * ND_ECHECKPOINT naming the tensor; ND_EIO. */
nd_status nd_checkpoint_read(const nd_checkpoint *checkpoint, int64_t index, void *values);

/* The same for its checksum alone. */
nd_status nd_checkpoint_check_tensor(const nd_checkpoint *checkpoint, int64_t index);

/* Finds the newest complete checkpoint under `directory` with a deep check; logs damaged ones.
 * `path` is empty when there are no checkpoints. Not collective. Errors: ND_ECHECKPOINT when all of
 * them are damaged, or one cannot be read. */
nd_status nd_checkpoint_newest(const char *directory, nd_log *log,
                               char path[ND_CHECKPOINT_PATH_MAX]);

/* The state of a directory with the name of a step. */
typedef struct nd_checkpoint_inspection {
    bool of_step; /* its manifest is of this step: it is that checkpoint, damaged or not */
    bool own;     /* and the manifest lists every file in it: the program wrote all of them */
    bool whole;   /* and all listed files exist with their sizes */
} nd_checkpoint_inspection;

/* Inspects that of `step` in `directory`. Errors: ND_ECHECKPOINT when it cannot be read. */
nd_status nd_checkpoint_inspect(const char *directory, int64_t step,
                                nd_checkpoint_inspection *standing);

/* Renames checkpoints of steps after `step`, which are damaged or belong to an abandoned branch, to
 * superseded_step_*, so that they are neither resumed nor counted, and makes `latest` name that of
 * `step`, or an earlier one; all or none. Earlier superseded checkpoints keep their names. Not
 * collective. Errors: ND_ECHECKPOINT. */
nd_status nd_checkpoint_supersede(const char *directory, int64_t step, nd_log *log);

/* Renames one checkpoint in the same way. `name` receives its new name. Errors: ND_ECHECKPOINT. */
nd_status nd_checkpoint_supersede_one(const char *directory, int64_t step,
                                      char name[ND_CHECKPOINT_NAME_MAX]);

/* Restores a checkpoint that a crash left half replaced, and removes those that it left half
 * written or half removed. Not collective. Errors: ND_ECHECKPOINT. */
nd_status nd_checkpoint_recover(const char *directory);

/* Restores masters, optimizer state, step and tokens of a run from a checkpoint of the same model,
 * on any number of ranks, and publishes the weights. Logs keys that have changed since. Collective.
 * Errors: ND_ECHECKPOINT naming the tensor, its shape in the checkpoint and the expected one;
 * ND_EDATA when the data has another tokenizer. */
nd_status nd_checkpoint_restore(nd_run *run, const char *directory);

/* The same from an open checkpoint; each rank must be able to read the files with what it owns. */
nd_status nd_checkpoint_restore_open(nd_run *run, const nd_checkpoint *checkpoint);

/* Prints what `info DIR` shows; `verify`: after a deep check. Errors: ND_ECHECKPOINT, ND_EIO. */
nd_status nd_checkpoint_print(const char *directory, bool verify, FILE *out);
