/* Error feedback of gradients that are rounded between ranks (dist/gradient_wire.h): for each tensor of
 * another owner that this rank sends, what rounding has taken from it so far, a byte a value.
 *
 * It is dropped where it would stand for something else: for a matrix whose gradients travel projected
 * when its subspace changes, and for all when a step is skipped. It is not in checkpoints; a run drops it
 * when it saves, so that one that resumes there goes on with the same bits. Sketches have none: those of
 * a matrix lie galore_update_freq steps apart. */
#ifndef ND_TRAIN_ERROR_FEEDBACK_H
#define ND_TRAIN_ERROR_FEEDBACK_H

#include "train/run.h"

/* Lays out its part of the category "wire"; run on a sizing arena, commit, run again. */
nd_status nd_error_feedback_reserve(nd_run *run, nd_arena *arena);

/* The format in which `count` values travel between the ranks of this run. */
nd_gradient_wire nd_error_feedback_format(const nd_run *run, int64_t count);

/* Not collective, but each must be called by all ranks in the same place. */
nd_status nd_error_feedback_drop(nd_run *run, int64_t index);
nd_status nd_error_feedback_drop_all(nd_run *run);

#endif
