/* One thread at a time in an HDF5 that is not built to be thread-safe, as its own default is:
 * writers of checkpoints and snapshots and readers of shards are on threads of their own. A
 * thread-safe library has such a lock itself. */
#pragma once

void nd_hdf5_lock(void);
void nd_hdf5_unlock(const int *unused);

/* At the start of a function that calls HDF5: holds the lock until it returns. Functions that hold
 * it may call others that do. ND_HDF5_LOCK=1 in the environment: in a thread-safe HDF5 too. */
#define ND_HDF5_LOCKED()                                                                           \
    __attribute__((cleanup(nd_hdf5_unlock), unused)) const int nd_hdf5_locked_ = 0;                \
    nd_hdf5_lock()
