#include "data/hdf5_errors.h"

#include <hdf5.h>
#include <stdio.h>

void nd_hdf5_quiet(void)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

static herr_t keep_description(unsigned position, const H5E_error2_t *error, void *text)
{
    if (position == 0 && error->desc)
        snprintf(text, 256, "%s", error->desc);
    return 0;
}

const char *nd_hdf5_reason(void)
{
    static _Thread_local char text[256];
    text[0] = '\0';
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_description, text);
    return text[0] ? text : "no reason given";
}
