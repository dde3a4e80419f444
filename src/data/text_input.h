/* An input file, inspected before it is read: text is opened, anything else is skipped or refused. */
#pragma once

#include "data/left_out.h"
#include "data/text_reader.h"

typedef struct nd_text_rules {
    bool binary;       /* take files that are not text as they are */
    bool refuse_jsonl; /* a file named as JSON Lines is not meant to be read as plain text */
} nd_text_rules;

/* Opens `path` ("-": standard input) and skips a byte order mark of UTF-8. A file that is no text (its first
 * 64 KiB hold NUL, or for a third bytes that are neither printable nor UTF-8) is left out: *reader is NULL and
 * `left_out` counts it. Errors: ND_EDATA naming the file, as nd_text_reader_open gives them; also where such a file
 * is itself an input (`named`), and for Parquet, Arrow and JSON Lines that would be read as something else. */
nd_status nd_text_input_open(const char *path, int named, const nd_text_rules *rules,
                             nd_left_out *left_out, nd_text_reader **reader);
