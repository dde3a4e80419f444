/* A whole file mapped into memory, for random access to files of any size. */
#pragma once

#include "core/base/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct nd_mapped_file {
    const uint8_t *bytes;
    size_t size;
} nd_mapped_file;

/* Maps a regular file read-only; the caller closes it. Errors: ND_EDATA naming file and reason. */
nd_status nd_mapped_file_open(const char *path, nd_mapped_file *file);
void nd_mapped_file_close(nd_mapped_file *file);
