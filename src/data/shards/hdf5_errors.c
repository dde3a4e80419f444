#include "data/shards/hdf5_errors.h"

#include <hdf5.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static hid_t access_lists[2]; /* without and with checksums on metadata */

static void initialize(void)
{
    H5dont_atexit();
    for (int checked = 0; checked < 2; checked++) {
        access_lists[checked] = H5Pcreate(H5P_FILE_ACCESS);
#if H5_VERSION_GE(1, 10, 7)
        H5Pset_file_locking(access_lists[checked], false, true);
#endif
    }
    H5Pset_libver_bounds(access_lists[1], H5F_LIBVER_V110, H5F_LIBVER_V110);
}

void nd_hdf5_start(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, initialize);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

int64_t nd_hdf5_access(bool checked)
{
    return access_lists[checked];
}

static const char system_error[] = "error message = '"; /* in HDF5's descriptions */

/* HDF5 describes a failed system call with a time stamp and addresses; only the reason matters. */
static void copy_reason(const char *description, char *text, size_t size)
{
    const char *reason = strstr(description, system_error);
    if (reason)
        snprintf(text, size, "%.*s", (int)strcspn(reason + strlen(system_error), "'"),
                 reason + strlen(system_error));
    else
        snprintf(text, size, "%.*s", (int)strcspn(description, "\n"), description);
}

static herr_t copy_innermost(unsigned position, const H5E_error2_t *error, void *text)
{
    if (position == 0 && error->desc)
        copy_reason(error->desc, text, 256);
    return 0;
}

static herr_t find_system_error(unsigned position, const H5E_error2_t *error, void *found)
{
    (void)position;
    if (error->desc && strstr(error->desc, system_error))
        *(bool *)found = true;
    return 0;
}

bool nd_hdf5_is_system_error(void)
{
    bool found = false;
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, find_system_error, &found);
    return found;
}

void nd_hdf5_release(const int64_t *handle)
{
    if (*handle >= 0)
        H5Idec_ref(*handle);
}

const char *nd_hdf5_reason(void)
{
    static _Thread_local char text[256];
    text[0] = '\0';
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, copy_innermost, text);
    return text[0] ? text : "no reason given";
}
