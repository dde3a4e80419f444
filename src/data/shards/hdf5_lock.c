#include "data/shards/hdf5_lock.h"

#include <hdf5.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

static pthread_mutex_t mutex;
static bool needed;

static void initialize(void)
{
    hbool_t safe = false;
    pthread_mutexattr_t recursive;
    const char *always = getenv("ND_HDF5_LOCK");
    needed = H5is_library_threadsafe(&safe) < 0 || !safe || (always && *always == '1');
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&mutex, &recursive);
    pthread_mutexattr_destroy(&recursive);
}

void nd_hdf5_lock(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, initialize);
    if (needed)
        pthread_mutex_lock(&mutex);
}

void nd_hdf5_unlock(const int *unused)
{
    (void)unused;
    if (needed)
        pthread_mutex_unlock(&mutex);
}
