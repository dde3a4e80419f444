/* Bytes of an input: a file, standard input, or what gzip or zstd made of one, known by its first bytes. */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct nd_text_reader nd_text_reader;

enum { ND_TEXT_PEEK_BYTES = 1 << 16 };

/* `path` may be "-", standard input. The caller closes it. Errors: ND_EDATA naming the file; ND_ENOMEM. */
nd_status nd_text_reader_open(const char *path, nd_text_reader **reader);
void nd_text_reader_close(nd_text_reader *reader);

/* The next bytes, at most `size`; *got is 0 at the end only. Errors: ND_EDATA naming the file: unreadable,
 * damaged or cut short where it is compressed, changed while it was read. */
nd_status nd_text_reader_read(nd_text_reader *reader, void *buffer, size_t size, size_t *got);

/* The first ND_TEXT_PEEK_BYTES bytes, fewer when there are no more, which reading gives again. To be called before
 * reading; the bytes stay the reader's. Errors: as above. */
nd_status nd_text_reader_peek(nd_text_reader *reader, const char **bytes, size_t *count);

/* Bytes of the file itself read so far. */
int64_t nd_text_reader_consumed(const nd_text_reader *reader);
bool nd_text_reader_is_compressed(const nd_text_reader *reader);
const char *nd_text_reader_name(const nd_text_reader *reader);
