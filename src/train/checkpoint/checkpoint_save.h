/* Saves a checkpoint while training continues.
 *
 * A save has two stages. First each rank writes its file (checkpoint_rank_file.c). When all have
 * finished, they exchange checksums, and rank 0 writes the remaining files and publishes the
 * directory (checkpoint_publish.c). Each stage runs on a thread that does not call MPI; collective
 * operations run between steps, once the reports of a step say that every rank is ready.
 *
 * Backends whose memory the host can read need no copy: masters and state change only in updates,
 * so the writer works during the forward and backward passes, and an update waits for it tensor by
 * tensor (nd_save_wait_written). From others they are first downloaded to run->saving.copy. */
#pragma once

#include "train/run/run.h"

typedef struct nd_save nd_save;

/* Finishes the previous save, starts a save of the run as it is now, and clears what a checkpoint
 * does not contain (nd_run_reset_error_feedback), so that a run that resumes from it continues like
 * this one. With `background` the save overlaps the following steps; otherwise it is complete on
 * return. Collective. Errors: ND_ECHECKPOINT naming the file and the system's reason; older
 * checkpoints are unchanged then. */
nd_status nd_save_begin(nd_run *run, bool background);

/* Whether this rank has finished its part of the current stage. Not collective. */
bool nd_save_ready(const nd_run *run);

/* Ends the current stage and starts the next; waits for ranks that are not ready. After the last
 * one rank 0 has logged the checkpoint and set run->saving.state_sha256. Collective. Errors: as
 * above. */
nd_status nd_save_advance(nd_run *run);

/* Completes all stages; ND_OK when no save is in progress. Collective. Errors: as nd_save_begin. */
nd_status nd_save_finish(nd_run *run);

/* Stops this rank's thread after the current tensor, which leaves an incomplete checkpoint. Not
 * collective. */
void nd_save_abandon(nd_run *run);

/* Counts a failed save; a successful one resets the count. */
void nd_save_count_failure(nd_run *run);

/* Milliseconds spent on saving since the last call. */
double nd_save_ms_since_last(nd_run *run);

/* Bytes of all tensors that this rank saves: the size of a copy of them. */
size_t nd_save_copy_bytes(const nd_run *run);
