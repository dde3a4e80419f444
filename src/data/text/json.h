/* JSON by Jansson, which reports a lack of memory as damaged text, or not at all: it loses
 * characters of what it reads, and keys of what it writes. */
#pragma once

#include "core/base/error.h"

#include <jansson.h>

/* *root: the value that the caller releases, or NULL when the text is not JSON, as `error` (may be
 * NULL) describes. Errors: ND_ENOMEM naming `name`; *root is then NULL. */
nd_status nd_json_parse(const void *text, size_t size, size_t flags, const char *name,
                        json_t **root, json_error_t *error);

/* `status` of reading the parts of that value, or ND_ENOMEM in its place: without memory Jansson
 * does not find them either. */
nd_status nd_json_status(nd_status status, const char *name);

/* The value as json_dumps writes it, which the caller frees; NULL without memory, and for a `value`
 * of NULL. */
char *nd_json_text(const json_t *value, size_t flags);
