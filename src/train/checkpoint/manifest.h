/* manifest.json of a checkpoint, in and out. It carries its own checksum: SHA-256 of its canonical
 * text (compact, keys sorted) without the key "checksum". */
#pragma once

#include "train/checkpoint/checkpoint.h"

/* JSON text of the manifest; the caller frees it. */
nd_status nd_manifest_format(const nd_checkpoint *checkpoint, char **text);

/* Fills everything but `directory`. Errors: ND_ECHECKPOINT naming `path` and what is wrong. */
nd_status nd_manifest_parse(const char *text, size_t size, const char *path,
                            nd_checkpoint *checkpoint);
