/* Writes the files of a checkpoint. Each is fsynced and listed in the checkpoint, which must have
 * room for it. Errors: ND_EIO, ND_ENOMEM, ND_ECHECKPOINT when a path is too long. */
#pragma once

#include "train/checkpoint/checkpoint.h"

nd_status nd_checkpoint_add_file(nd_checkpoint *c, const char *directory, const char *name,
                                 const void *bytes, size_t size);

/* Writes config.ini, with the run's identity in comments where the checkpoint has one. */
nd_status nd_checkpoint_add_config(nd_checkpoint *c, const char *directory,
                                   const nd_config *config);

/* The parts of these functions: the text of config.ini, which the caller frees; listing a file; and
 * the text of manifest.json, which the caller frees. */
nd_status nd_checkpoint_config_text(const nd_checkpoint *c, const nd_config *config, char **text,
                                    size_t *size);
nd_status nd_checkpoint_list_file(nd_checkpoint *c, const char *name, const void *bytes,
                                  size_t size);
nd_status nd_checkpoint_manifest_text(nd_checkpoint *c, char **text);

/* Computes the state's digest from tensors' checksums and writes manifest.json, the last file. */
nd_status nd_checkpoint_add_manifest(nd_checkpoint *c, const char *directory);
