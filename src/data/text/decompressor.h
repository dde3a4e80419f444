/* Decompresses gzip and zstd incrementally, with any number of consecutive members or frames. */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct nd_decompressor nd_decompressor;

enum { ND_DECOMPRESSOR_MAGIC_BYTES = 4 };

/* Detects the format from a file's first bytes; *decompressor is NULL when it is not compressed.
 * The caller closes it. Errors: ND_ENOMEM. */
nd_status nd_decompressor_open(const void *first, size_t bytes, const char *name,
                               nd_decompressor **decompressor);
void nd_decompressor_close(nd_decompressor *decompressor);

/* Reads *consumed of the `bytes` bytes at `from` (0: flush) and writes *produced bytes, at most
 * `size`, to `buffer`. Errors: ND_EDATA naming the file `name`. */
nd_status nd_decompressor_run(nd_decompressor *decompressor, const char *name, const void *from,
                              size_t bytes, size_t *consumed, void *buffer, size_t size,
                              size_t *produced);

/* Whether the input so far ends inside a member or frame. */
bool nd_decompressor_is_inside(const nd_decompressor *decompressor);
