/* Saving a checkpoint while training continues.
 *
 * A save has two stages. First each rank writes what it owns into its file (checkpoint_rank_file.c). When
 * all have, they exchange checksums, and rank 0 writes the rest and publishes the directory
 * (checkpoint_publish.c). The work of a stage is done on a thread without MPI; what is collective is done
 * between steps, when the reports of a step say that every rank is ready.
 *
 * Nothing is copied for it on backends whose memory the host can read: masters and state change in
 * updates only, so the writer has the time of a forward and backward pass, and an update waits for it
 * tensor by tensor (nd_save_wait_written). Elsewhere they are downloaded first, into run->saving.copy. */
#pragma once

#include "train/run.h"

typedef struct nd_save nd_save;

/* Finishes the previous save, begins to save the run as it is now, and drops what a checkpoint does not hold
 * (nd_run_reset_error_feedback), so that a run that resumes here continues like this one. With `background` the
 * save overlaps the following steps; otherwise it is finished on return. Collective. Errors: ND_ECHECKPOINT
 * naming the file and the system's reason; older checkpoints are untouched then. */
nd_status nd_save_begin(nd_run *run, bool background);

/* Whether this rank has done its part of the current stage. */
bool nd_save_ready(const nd_run *run);

/* Ends the current stage and begins the next; waits where a rank is not ready. After the last one rank 0
 * has logged the checkpoint and run->saving.state_sha256 is set there. Collective. Errors: as nd_save_begin. */
nd_status nd_save_advance(nd_run *run);

/* Completes all stages; ND_OK when nothing is pending. Collective. */
nd_status nd_save_finish(nd_run *run);

/* To be called before masters or state of parameter `index` change: waits until they are written. */
void nd_save_wait_written(nd_run *run, int64_t index);

/* Waits for this rank's thread, which writes no further tensor, and leaves the checkpoint unfinished. */
void nd_save_abandon(nd_run *run);

/* run->saving after a checkpoint of `step` was restored; -1: one that does not hold the whole state. */
void nd_save_after_restore(nd_run *run, int64_t step);

/* A save has failed: counted until one succeeds. */
void nd_save_count_failure(nd_run *run);

/* Milliseconds spent on saving since this was called last. */
double nd_save_ms_since_last(nd_run *run);

/* Bytes of the copy that a background save makes where the host cannot read the backend's memory. */
size_t nd_save_copy_bytes(const nd_run *run);
