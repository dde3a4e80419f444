/* Names in a directory of checkpoints; no other code knows them. Anything else there is the user's
 * and is neither counted, moved nor removed.
 *
 *   step_00001000                     a checkpoint
 *   superseded_step_00001000[_002]    one of an abandoned branch, kept for the user
 *   .tmp_step_00001000                one that is being written or removed
 *   .tmp_replaced_step_00001000       the earlier one of a step while a new one replaces it
 *   latest                            a symbolic link to a name of the first kind */
#pragma once

#include "core/config/config.h"

#include <stdbool.h>
#include <stdint.h>

enum { ND_CHECKPOINT_NAME_MAX = 64, ND_CHECKPOINT_PATH_MAX = 4096 };

#define ND_CHECKPOINT_UNFINISHED ".tmp_"
#define ND_CHECKPOINT_REPLACED ".tmp_replaced_"
#define ND_CHECKPOINT_SUPERSEDED "superseded_"

/* Writes `prefix` ("" or one of the above) and the name of the step. */
void nd_checkpoint_name(char name[ND_CHECKPOINT_NAME_MAX], const char *prefix, int64_t step);

/* The path of a run's checkpoints: [logging] checkpoint_dir, else <run_dir>/checkpoints. */
void nd_checkpoint_directory(const nd_config *config, char *path, size_t size);

/* Joins a directory and a name, or the name of a step. Errors: ND_ECHECKPOINT: too long. */
nd_status nd_checkpoint_join(char path[ND_CHECKPOINT_PATH_MAX], const char *directory,
                             const char *name);
nd_status nd_checkpoint_step_path(char path[ND_CHECKPOINT_PATH_MAX], const char *directory,
                                  const char *prefix, int64_t step);

/* Whether `name` is what nd_checkpoint_name writes for `prefix` and a step (may be NULL). */
bool nd_checkpoint_name_parse(const char *name, const char *prefix, int64_t *step);

/* Whether `name` is superseded_step_00001000, possibly with a number after it. */
bool nd_checkpoint_name_superseded(const char *name);

typedef struct nd_checkpoint_steps {
    int64_t *list; /* ascending */
    int count;
    int64_t left_out; /* the highest step so named that is no directory; -1: none */
} nd_checkpoint_steps;

/* Lists the steps of the directories in `directory` with such a name, without symbolic links and
 * files; none when the directory does not exist. The caller frees them. Errors: ND_ECHECKPOINT
 * naming the path when it cannot be read, which must not be mistaken for "none". */
nd_status nd_checkpoint_steps_list(const char *directory, const char *prefix,
                                   nd_checkpoint_steps *steps);
void nd_checkpoint_steps_free(nd_checkpoint_steps *steps);

/* Reads the step that `latest` in `directory` names; -1 if there is none or, with *foreign, if the
 * program did not create it (a file, a directory, another link). Errors: ND_ECHECKPOINT. */
nd_status nd_checkpoint_latest_read(const char *directory, int64_t *step, bool *foreign);

/* Makes `latest` name `step`; removes it with step -1. Leaves one that the program did not create
 * unchanged. *unsupported (may be NULL): nothing was done, for that reason or because the file
 * system has no symbolic links. Errors: ND_ECHECKPOINT. */
nd_status nd_checkpoint_latest_write(const char *directory, int64_t step, bool *unsupported);
