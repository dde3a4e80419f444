/* Visits the files of a list of inputs: directories are walked in the order of names and filtered
 * by a glob. Symbolic links are followed, each file is visited once, and skipped files are counted
 * (left_out.h). Visiting takes about 100 bytes of memory per file. */
#pragma once

#include "core/base/error.h"
#include "data/text/left_out.h"

#include <stdint.h>

typedef struct nd_text_sources {
    const char *const *inputs; /* files, directories, or "-" for standard input */
    int count;
    /* For directories; NULL: every file. Matched against the file's name, or, if it contains '/',
     * against its path in the directory. */
    const char *glob;
    const char *out; /* files that pack wrote to this directory are skipped; NULL: none */
} nd_text_sources;

/* Called with each file's path and size, -1 for standard input and files that are not regular.
 * `named`: 1 for an input itself, 0 for a file in a directory. A status other than ND_OK ends the
 * walk and is returned. */
typedef nd_status (*nd_text_visit)(void *context, const char *path, int64_t bytes, int named);

/* Raises ND_EDATA, which says that these inputs hold no text to `use`. */
nd_status nd_text_sources_fail_empty(const nd_text_sources *sources, const char *use);

/* `left_out` may be NULL. Errors: those of `visit`; ND_EDATA naming an input that does not exist or
 * is unreadable, or when there is no file at all. */
nd_status nd_text_sources_visit(const nd_text_sources *sources, nd_text_visit visit, void *context,
                                nd_left_out *left_out);
