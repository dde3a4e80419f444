#include "data/hdf5_errors.h"

#include <hdf5.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static void leave_at_exit(void)
{
    H5dont_atexit();
}

void nd_hdf5_start(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, leave_at_exit);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

/* Of a failed system call HDF5 tells a paragraph with a time stamp and addresses; the system's
 * reason in it is what matters. */
static void keep_reason(const char *description, char *text, size_t size)
{
    static const char mark[] = "error message = '";
    const char *reason = strstr(description, mark);
    if (reason)
        snprintf(text, size, "%.*s", (int)strcspn(reason + strlen(mark), "'"),
                 reason + strlen(mark));
    else
        snprintf(text, size, "%.*s", (int)strcspn(description, "\n"), description);
}

static herr_t keep_description(unsigned position, const H5E_error2_t *error, void *text)
{
    if (position == 0 && error->desc)
        keep_reason(error->desc, text, 256);
    return 0;
}

const char *nd_hdf5_reason(void)
{
    static _Thread_local char text[256];
    text[0] = '\0';
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_description, text);
    return text[0] ? text : "no reason given";
}
