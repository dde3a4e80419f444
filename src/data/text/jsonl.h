/* JSON Lines: each line is a JSON object, one field of which is a document. */
#pragma once

#include "data/text/left_out.h"
#include "data/text/text_reader.h"

/* In bytes. A longer line is a bad line, because whole lines are held in memory. */
enum { ND_JSONL_LINE_MAX = 1 << 28 };

/* Called with the document of a line of `reader`; a status other than ND_OK ends the reading. */
typedef nd_status (*nd_jsonl_visit)(void *context, const nd_text_reader *reader, const char *text,
                                    size_t bytes);

typedef struct nd_jsonl_rules {
    const char *field;
    bool skip_bad; /* count bad lines in `left_out` instead of failing */
    nd_left_out *left_out;
} nd_jsonl_rules;

/* Calls `visit` with the string `field` of each line that is not blank. Errors: those of `visit`;
 * ND_EDATA naming file and line of a bad one: not a JSON object, without the field or a string in
 * it, invalid UTF-8, or too long. */
nd_status nd_jsonl_read(nd_text_reader *reader, const nd_jsonl_rules *rules, nd_jsonl_visit visit,
                        void *context);
