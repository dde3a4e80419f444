/* Writes and parses manifest.json of a checkpoint. The file contains its own checksum: SHA-256 of
 * its canonical text (compact, keys sorted) without the key "checksum". */
#pragma once

#include "train/checkpoint/checkpoint.h"

/* Writes the manifest as JSON; the caller frees the text. Errors: ND_ENOMEM. */
nd_status nd_manifest_format(const nd_checkpoint *checkpoint, char **text);

/* Fills all fields except `directory`. Errors: ND_ECHECKPOINT naming `path` and what is wrong. */
nd_status nd_manifest_parse(const char *text, size_t size, const char *path,
                            nd_checkpoint *checkpoint);
