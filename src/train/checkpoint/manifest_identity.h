/* The part of a manifest that says which run a checkpoint is of, on what data, and who wrote it. */
#pragma once

#include "train/identity.h"

#include <jansson.h>

void nd_manifest_add_identity(json_t *root, const nd_identity *identity);

/* Keys that are absent, as in checkpoints of older versions, leave their part empty. Errors:
 * ND_ECHECKPOINT naming `path` and the key that is malformed. */
nd_status nd_manifest_parse_identity(const json_t *root, const char *path, nd_identity *identity);
