/* The lock of a directory: one run at a time writes there.
 *
 * It is the file run.lock with a record of its owner, made with O_EXCL, so that it holds on file systems
 * without file locks too; where there are file locks the owner also has the file flock()ed, which the
 * kernel gives up when the process ends, however it ends. A lock whose owner is gone is taken over:
 *   - on the owner's machine: the process is gone, or another one has its number now, or the machine was
 *     started again since;
 *   - from another machine: the file system's locks reach all machines and the file is free, or Slurm has
 *     started the owner's job again.
 * Anything else is an error that says what is known of the owner and what to do. */
#pragma once

#include "core/base/error.h"
#include "core/config/config.h"
#include "dist/comm.h"

#define ND_RUN_LOCK_NAME "run.lock"

typedef struct nd_run_lock nd_run_lock;

/* Makes `directory` where it is absent and takes its lock; waits a few seconds for an owner that is about
 * to end. Not collective. Errors: ND_ECONFIG naming the owner, what is known of it and what to do; ND_EIO
 * naming the file. */
nd_status nd_run_lock_acquire(const char *directory, nd_run_lock **lock);

/* Removes the file. NULL is fine. */
void nd_run_lock_release(nd_run_lock *lock);

/* The locks of a run's directory and of its directory of checkpoints, which another run may share. */
typedef struct nd_run_locks {
    nd_run_lock *run, *checkpoints; /* NULL: not taken, or both directories are the same */
} nd_run_locks;

/* On an error none is held. */
nd_status nd_run_locks_acquire(const nd_config *config, nd_run_locks *locks);

/* Fails on all ranks when one of them sees another directory of checkpoints than rank 0, which holds the
 * locks: another working directory, or a file system that is not shared. Collective. Errors: ND_ECONFIG
 * naming the rank and what its path leads to. */
nd_status nd_run_locks_compare(const nd_config *config, const nd_run_locks *locks, nd_comm *comm);

/* From here on the records say which run this is; what cannot be written stays as it is. */
void nd_run_locks_name(const nd_run_locks *locks, const char *run_id);
void nd_run_locks_release(nd_run_locks *locks);
