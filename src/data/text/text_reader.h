/* The bytes of a file or of standard input, decompressed if they are gzip or zstd. */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct nd_text_reader nd_text_reader;

enum { ND_TEXT_PEEK_BYTES = 1 << 16 };

/* `path` may be "-", standard input. The caller closes the reader. Errors: ND_EDATA naming `path`;
 * ND_ENOMEM. */
nd_status nd_text_reader_open(const char *path, nd_text_reader **reader);
void nd_text_reader_close(nd_text_reader *reader);

/* Reads the next bytes, at most `size`; *got is 0 only at the end. Errors: ND_EDATA naming a file
 * that is unreadable, compressed and damaged or cut short, or that changed while it was read. */
nd_status nd_text_reader_read(nd_text_reader *reader, void *buffer, size_t size, size_t *got);

/* The first ND_TEXT_PEEK_BYTES bytes, or all when there are fewer, without consuming them; owned by
 * the reader. Call it before reading. Errors: as above. */
nd_status nd_text_reader_peek(nd_text_reader *reader, const char **bytes, size_t *count);

/* Bytes of the file read so far, before decompression. */
int64_t nd_text_reader_consumed(const nd_text_reader *reader);
bool nd_text_reader_is_compressed(const nd_text_reader *reader);
const char *nd_text_reader_name(const nd_text_reader *reader);
