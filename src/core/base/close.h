/* For ND_CLEANUP: closes what was opened, unless that failed. */
#pragma once

#include <dirent.h>
#include <stdio.h>
#include <unistd.h>

static inline void nd_close_file(FILE **file)
{
    if (*file)
        fclose(*file);
}

static inline void nd_close_descriptor(int *descriptor)
{
    if (*descriptor >= 0)
        close(*descriptor);
}

static inline void nd_close_directory(DIR **directory)
{
    if (*directory)
        closedir(*directory);
}
