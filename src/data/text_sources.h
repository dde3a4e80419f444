/* The files of a list of inputs: files as given, directories walked in the order of their
 * names and filtered by a glob. Symbolic links are followed, each file is visited once, and what is left out is
 * counted (left_out.h). Visiting takes about 100 bytes of memory a file. */
#pragma once

#include "core/base/error.h"
#include "data/left_out.h"

#include <stdint.h>

typedef struct nd_text_sources {
    const char *const *inputs; /* files, directories, or "-" for standard input */
    int count;
    /* For directories; NULL takes every file. Matched against the file's name, or, when it contains '/', against its
     * path within the directory. */
    const char *glob;
    const char *out; /* what pack wrote to this directory is left out; NULL: no such directory */
} nd_text_sources;

/* Called with each file's path and size; a status other than ND_OK ends the walk and is returned.
 * Standard input and files that are not regular have size -1. `named` is 1 for an input itself, 0 for what lies
 * in a directory. */
typedef nd_status (*nd_text_visit)(void *context, const char *path, int64_t bytes, int named);

/* `left_out` may be NULL. Errors: ND_EDATA naming an input that does not exist or is unreadable, or when
 * the inputs hold no file at all. */
nd_status nd_text_sources_visit(const nd_text_sources *sources, nd_text_visit visit, void *context,
                                nd_left_out *left_out);
