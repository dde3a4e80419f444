/* The files that a list of inputs stands for: files as given, directories walked in the order of
 * their names, filtered by a glob; symbolic links inside directories are not followed. */
#ifndef ND_DATA_TEXT_SOURCES_H
#define ND_DATA_TEXT_SOURCES_H

#include "core/base/error.h"

#include <stdint.h>

/* Called with each file's path and size; a status other than ND_OK ends the walk and is returned.
 * Standard input, when an input is "-", has size -1. */
typedef nd_status (*nd_text_visit)(void *context, const char *path, int64_t bytes);

/* `glob` (may be NULL) is matched against the file's name, or against its path within the directory
 * when it contains '/'. Files given by name are always taken. Errors: ND_EDATA naming an input that
 * does not exist or is unreadable. */
nd_status nd_text_sources_visit(const char *const *inputs, int count, const char *glob,
                                nd_text_visit visit, void *context);

typedef struct nd_text_total {
    int64_t files, bytes;
    int has_stdin;
} nd_text_total;

/* Errors also when the inputs hold no file at all: ND_EDATA naming inputs and glob. */
nd_status nd_text_sources_total(const char *const *inputs, int count, const char *glob,
                                nd_text_total *total);

#endif
