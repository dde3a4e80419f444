/* Files that come with the program: in a build tree beside the sources, after an install in its share directory. */
#pragma once

#include "core/base/error.h"

/* Writes into `path` the first readable file among places[i] followed by `name`; places are relative to the
 * directory of the running program, "" to the current one. An absolute `name` is taken as it is. `what` names it in
 * the error: ND_ECONFIG with all paths that were tried. */
nd_status nd_program_file_find(const char *const *places, int count, const char *name,
                               const char *what, char *path, size_t size);
