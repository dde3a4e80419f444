/* Files of the program: beside the sources, or in the share directory when installed. */
#pragma once

#include "core/base/error.h"

/* Writes into `path` the first readable file among places[i] followed by `name`. Places are
 * relative to the directory of the running program, "" is the current directory; an absolute `name`
 * is used as it is. Errors: ND_ECONFIG, naming `what` and all paths tried. */
nd_status nd_program_file_find(const char *const *places, int count, const char *name,
                               const char *what, char *path, size_t size);
