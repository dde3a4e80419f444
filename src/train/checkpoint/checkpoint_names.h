/* Names in a directory of checkpoints: the only place that knows them. Whatever else lies there is the
 * user's, and is neither counted, moved nor removed.
 *
 *   step_00001000                     a checkpoint
 *   superseded_step_00001000[_002]    one of a branch that was given up, kept for the user
 *   .tmp_step_00001000                one that is being written or removed
 *   .tmp_replaced_step_00001000       the earlier one of the same step while a new one takes its place
 *   latest                            a symbolic link to a name of the first kind */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>
#include <stdint.h>

enum { ND_CHECKPOINT_NAME_MAX = 64 };

#define ND_CHECKPOINT_UNFINISHED ".tmp_"
#define ND_CHECKPOINT_REPLACED ".tmp_replaced_"
#define ND_CHECKPOINT_SUPERSEDED "superseded_"

/* `prefix` ("" or one of the above) and the step's name. */
void nd_checkpoint_name(char name[ND_CHECKPOINT_NAME_MAX], const char *prefix, int64_t step);

/* Whether `name` is exactly `prefix`, "step_" and the digits that nd_checkpoint_name writes. `step` may be
 * NULL. */
bool nd_checkpoint_name_parse(const char *name, const char *prefix, int64_t *step);

/* superseded_step_00001000, or one with a number after it. */
bool nd_checkpoint_name_superseded(const char *name);

typedef struct nd_checkpoint_steps {
    int64_t *list; /* in rising order */
    int count;
    int64_t left_out; /* the highest step of such a name that is no directory, else -1 */
} nd_checkpoint_steps;

/* The steps of the directories in `directory` that have such a name; symbolic links and files are left
 * out. None where the directory does not exist. The caller frees `list`. Errors: ND_ECHECKPOINT naming
 * the path where it cannot be looked at, which must never be taken for "none". */
nd_status nd_checkpoint_steps_list(const char *directory, const char *prefix,
                                   nd_checkpoint_steps *steps);

/* What `latest` in `directory` names: *step, or -1 where there is none or it is not the program's own (a
 * file, a directory, a link to another name): *foreign then. Errors: ND_ECHECKPOINT. */
nd_status nd_checkpoint_latest_read(const char *directory, int64_t *step, bool *foreign);

/* Makes `latest` name `step`, or removes it with step -1. One that is not the program's own stays.
 * *unsupported (may be NULL) says that nothing was done, for that reason or because the file system has no
 * symbolic links. Errors: ND_ECHECKPOINT. */
nd_status nd_checkpoint_latest_write(const char *directory, int64_t step, bool *unsupported);
