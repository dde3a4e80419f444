/* The part of a manifest about the run, the data and the program that wrote it. */
#pragma once

#include "train/run/identity.h"

#include <jansson.h>

/* Returns false when there is no memory. */
bool nd_manifest_add_identity(json_t *root, const nd_identity *identity);

/* Missing keys, as in checkpoints of older versions, leave their fields empty. Errors:
 * ND_ECHECKPOINT naming `path` and the malformed key. */
nd_status nd_manifest_parse_identity(const json_t *root, const char *path, nd_identity *identity);
