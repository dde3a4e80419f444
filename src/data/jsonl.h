/* JSON Lines: one JSON object a line, one of its fields is a document. */
#pragma once

#include "data/left_out.h"
#include "data/text_reader.h"

/* A longer line is a bad one: lines are held in memory whole. */
enum { ND_JSONL_LINE_MAX = 1 << 28 };

/* `reader` is the one whose line it is. */
typedef nd_status (*nd_jsonl_visit)(void *context, const nd_text_reader *reader, const char *text,
                                    size_t bytes);

typedef struct nd_jsonl_rules {
    const char *field;
    bool skip_bad; /* bad lines are counted in `left_out` instead of ending the reading */
    nd_left_out *left_out;
} nd_jsonl_rules;

/* Calls `visit` with the string `field` of each line. Blank lines are passed over. Errors: ND_EDATA
 * naming file and line of a bad one: no JSON object, no such field, no string, invalid UTF-8, too long. */
nd_status nd_jsonl_read(nd_text_reader *reader, const nd_jsonl_rules *rules, nd_jsonl_visit visit,
                        void *context);
