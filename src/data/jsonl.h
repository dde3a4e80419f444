/* JSON Lines: one JSON object a line, one of its fields is a document. */
#ifndef ND_DATA_JSONL_H
#define ND_DATA_JSONL_H

#include "core/base/error.h"

#include <stdio.h>

/* A longer line is an error: lines are held in memory whole. */
enum { ND_JSONL_LINE_MAX = 1 << 28 };

typedef nd_status (*nd_jsonl_visit)(void *context, const char *text, size_t bytes,
                                    size_t line_bytes);

/* Calls `visit` with the string `field` of each line. Blank lines are passed over. Errors: ND_EDATA
 * naming file and line: no JSON object, no such field, no string, invalid UTF-8. */
nd_status nd_jsonl_read(FILE *file, const char *name, const char *field, nd_jsonl_visit visit,
                        void *context);

#endif
