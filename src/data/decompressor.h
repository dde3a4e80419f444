/* What gzip and zstd compressed, a part at a time: any number of members or frames one after the other. */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct nd_decompressor nd_decompressor;

enum { ND_DECOMPRESSOR_MAGIC_BYTES = 4 };

/* For a file that begins with these bytes; *decompressor is NULL when they are not compressed. Errors:
 * ND_ENOMEM. */
nd_status nd_decompressor_open(const void *first, size_t bytes, const char *name,
                               nd_decompressor **decompressor);
void nd_decompressor_close(nd_decompressor *decompressor);

/* Takes some of the `bytes` bytes at `from` (0 to flush) and produces at most `size`. Errors:
 * ND_EDATA naming the file. */
nd_status nd_decompressor_run(nd_decompressor *decompressor, const char *name, const void *from,
                              size_t bytes, size_t *taken, void *buffer, size_t size, size_t *made);

/* Whether a member or frame has begun and not ended. */
bool nd_decompressor_is_inside(const nd_decompressor *decompressor);
