/* The files of a checkpoint that is being written. Each is fsynced and listed in the checkpoint, which has room for it.
 * Errors: ND_EIO, ND_ENOMEM, ND_ECHECKPOINT when a path is too long. */
#pragma once

#include "train/checkpoint/checkpoint.h"

nd_status nd_checkpoint_add_file(nd_checkpoint *c, const char *directory, const char *name,
                                 const void *bytes, size_t size);

/* config.ini, with the run's identity in comments where the checkpoint has one. */
nd_status nd_checkpoint_add_config(nd_checkpoint *c, const char *directory,
                                   const nd_config *config);

/* The state's digest over those of all tensors listed, then manifest.json, the last file. */
nd_status nd_checkpoint_add_manifest(nd_checkpoint *c, const char *directory);
