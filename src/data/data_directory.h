/* A directory that holds a data set: shards and their index (shard_index.h), read only.
 *
 * A pack that replaces a data set completes the new one in the subdirectory ND_PACK_STAGING and
 * then moves it here file by file (pack_staging.h). While an index is there, it is the valid one,
 * and a shard that is still there takes precedence over one of the same name here, so readers
 * always find a complete data set. */
#pragma once

#include "data/shards/shard_index.h"

#include <stdbool.h>
#include <stdio.h>

#define ND_PACK_STAGING ".pack_in_progress"

typedef struct nd_data_directory {
    char *path;
    bool staged; /* the index is that of a pack that has not moved all of its files yet */
    nd_shard_index index;
} nd_data_directory;

/* Reads the index and checks that the shards it lists are there, with their sizes, and unless
 * `staged` that no others are. The caller closes it, unless it failed. Errors: ND_EDATA naming the
 * directory or file and what to do. */
nd_status nd_data_directory_open(const char *path, nd_data_directory *directory);
void nd_data_directory_close(nd_data_directory *directory);

/* Opens shard `number` and checks it against the index. The caller closes it. Errors: ND_EDATA. */
nd_status nd_data_directory_open_shard(const nd_data_directory *directory, size_t number,
                                       nd_shard *shard);

/* Prints what `info DIR` shows. Opens all shards; with `verify` also compares their SHA-256 with
 * the index's. Errors: ND_EDATA. */
nd_status nd_data_directory_print(const char *path, bool verify, FILE *out);

/* Calls `visit` with the name of each file in a directory, in their order. Errors: those of
 * `visit`; ND_EDATA when the directory cannot be listed. */
nd_status nd_data_directory_list(const char *path,
                                 nd_status (*visit)(void *context, const char *name),
                                 void *context);

/* Whether the file exists. Errors: ND_EDATA when the system cannot tell. */
nd_status nd_data_exists(const char *path, bool *exists);

/* Writes PATH/part/name to `result` [PATH_MAX]. Errors: ND_EIO when it is too long. */
nd_status nd_data_path(const char *path, const char *part, const char *name, char *result);
