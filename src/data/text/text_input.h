/* An input file, inspected before it is read: text is opened, the rest skipped or refused. */
#pragma once

#include "data/text/left_out.h"
#include "data/text/text_reader.h"

typedef struct nd_text_rules {
    bool binary;       /* read files that are not text as they are */
    bool refuse_jsonl; /* refuse to read a file with a name of JSON Lines as plain text */
} nd_text_rules;

/* Opens `path` ("-": standard input) and skips a UTF-8 byte order mark. A file that is not text
 * (its first 64 KiB contain NUL, or a third of them are neither printable nor UTF-8) is skipped:
 * *reader is NULL and `left_out` counts it. The caller closes the reader. Errors: those of
 * nd_text_reader_open; ND_EDATA when such a file is itself an input (`named`), and for Parquet,
 * Arrow and JSON Lines, which are not text. */
nd_status nd_text_input_open(const char *path, int named, const nd_text_rules *rules,
                             nd_left_out *left_out, nd_text_reader **reader);
