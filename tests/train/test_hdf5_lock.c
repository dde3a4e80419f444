/* HDF5 libraries that are not thread-safe: one thread at a time. */
#include "data/shards/hdf5_lock.h"
#include "support/run_files.h"
#include "support/support.h"
#include "train/checkpoint/checkpoint_hdf5.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char output[16384];
static atomic_int done;

static void setup(void)
{
    setenv("ND_HDF5_LOCK", "1", 1); /* before its first use */
    nd_test_run_setup();
}

TestSuite(hdf5_lock, .init = setup, .fini = nd_test_run_teardown);

static void *use_file(void *path)
{
    nd_checkpoint_h5 *file;
    float values[6] = {1, 2, 3, 4, 5, 6};
    nd_status status = nd_checkpoint_h5_create(path, &file);
    ND_IF_OK(nd_checkpoint_h5_write(file, "/a", nd_cview_of(values, ND_F32, 2, 3)));
    ND_IF_OK(nd_checkpoint_h5_close(file));
    ND_IF_OK(nd_checkpoint_h5_open(path, &file));
    ND_IF_OK(nd_checkpoint_h5_read(file, "/a", nd_view_of(values, ND_F32, 2, 3)));
    ND_IF_OK(nd_checkpoint_h5_close(file));
    atomic_store(&done, status == ND_OK ? 1 : -1);
    return NULL;
}

static pthread_t hold_and_start(char path[128])
{
    ND_HDF5_LOCKED();
    pthread_t thread;
    snprintf(path, 128, "%s/a.h5", nd_test_here.directory);
    nd_hdf5_lock(); /* a second time */
    cr_assert_eq(pthread_create(&thread, NULL, use_file, path), 0);
    usleep(300 * 1000);
    cr_assert_eq(atomic_load(&done), 0, "HDF5 was used by two threads at once");
    nd_hdf5_unlock(NULL);
    usleep(100 * 1000);
    cr_assert_eq(atomic_load(&done), 0, "HDF5 was used by two threads at once");
    return thread;
}

Test(hdf5_lock, makes_threads_wait_for_each_other)
{
    char path[128];
    const pthread_t thread = hold_and_start(path);
    pthread_join(thread, NULL);
    cr_assert_eq(atomic_load(&done), 1);
}

Test(hdf5_lock, changes_no_bit_of_a_run)
{
    cr_assert_eq(
        nd_test_run_script(
            output, sizeof output,
            ND_TEST_MAKE_SHARDS
            "for l in 0 1; do export ND_HDF5_LOCK=$l; rm -rf run; $S --total-steps 8 --set "
            "training.use_async_loader=true --set logging.checkpoint_interval=1 --set "
            "logging.snapshot_interval=1 --set logging.snapshot_buddy=always --set "
            "logging.snapshot_dir=$D/snapshots > log || { cat log; exit 1; }; $B info --verify "
            "run/checkpoints/latest || exit 2; grep state_sha256 run/checkpoints/latest/"
            "manifest.json > state$l || exit 3; done; cmp state0 state1"),
        0, "%s", output);
}
