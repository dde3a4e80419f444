/* The lock of a directory: only one run at a time writes there.
 *
 * It is the file run.lock with a record of its owner, created with O_EXCL, so that it also works on
 * file systems without file locks; where they exist the owner also holds flock() on the file, which
 * the kernel releases when the process ends, however it ends. A lock is taken over when its owner
 * has ended:
 *   - on the owner's machine: the process has ended, its pid belongs to another process, or the
 *     machine has rebooted since;
 *   - from another machine: the file system's locks reach all machines and the file is not locked,
 *     or Slurm has requeued the owner's job.
 *
 * Otherwise it is an error that says what is known about the owner and what to do. */
#pragma once

#include "core/base/error.h"
#include "core/config/config.h"
#include "dist/comm.h"

#define ND_RUN_LOCK_NAME "run.lock"

typedef struct nd_run_lock nd_run_lock;

/* Creates `directory` if necessary and acquires its lock; waits a few seconds for an owner that is
 * about to end. The caller releases it. Not collective. Errors: ND_ECONFIG naming the owner, what
 * is known about it and what to do; ND_EIO naming the file. */
nd_status nd_run_lock_acquire(const char *directory, nd_run_lock **lock);

/* Removes the file. NULL is allowed. */
void nd_run_lock_release(nd_run_lock *lock);

/* The locks of a run's directory and its directory of checkpoints, which another run may share. */
typedef struct nd_run_locks {
    nd_run_lock *run, *checkpoints; /* NULL: not held, or both directories are the same */
} nd_run_locks;

/* Acquires both; on an error neither is held. Rank 0. Errors: as nd_run_lock_acquire. */
nd_status nd_run_locks_acquire(const nd_config *config, nd_run_locks *locks);

/* Checks that every rank sees the same directory of checkpoints as rank 0, which holds the locks.
 * It does not when its working directory differs or the file system is not shared. Collective.
 * Errors on all ranks: ND_ECONFIG naming the rank and what its path refers to. */
nd_status nd_run_locks_compare(const nd_config *config, const nd_run_locks *locks, nd_comm *comm);

/* Call it before writing into the directories by their paths: checks that they are still those that
 * were locked. One that was removed is created and locked again. Not collective.
 * Errors: ND_ECHECKPOINT naming a directory that was renamed, or the run that it belongs to now;
 * those of nd_run_lock_acquire. */
nd_status nd_run_locks_confirm(nd_run_locks *locks, const nd_config *config, const char *run_id);

/* Adds the run's id to the records; failures are ignored. */
void nd_run_locks_name(const nd_run_locks *locks, const char *run_id);
void nd_run_locks_release(nd_run_locks *locks);
