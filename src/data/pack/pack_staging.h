/* Publishes a pack atomically: readers see all of it or nothing, whenever it is killed.
 *
 *   1. Everything is written to OUT/.pack_in_progress: shards, tokenizer.model, each durable.
 *   2. The index is written there, durable. From now on readers see the new data set
 *      (data_directory.h); before, it was the old one.
 *   3. The files are renamed into OUT, and OUT fsynced.
 *   4. Old shards that the new index does not list are removed.
 *   5. The index is renamed into OUT, and OUT fsynced; the directory of step 1 is removed.
 *
 * A pack that was killed in step 1 changed nothing for readers; the next pack finishes one that was
 * killed later. A file lock, where the file system has them, keeps two packs from writing to the
 * same OUT. */
#pragma once

#include "core/base/error.h"

#include <limits.h>
#include <stdbool.h>

typedef struct nd_pack_staging {
    const char *out;     /* borrowed */
    char path[PATH_MAX]; /* where files are written until they are published */
    int lock;            /* -1: none */
} nd_pack_staging;

/* Creates OUT if it is missing, locks it, and publishes what an interrupted pack completed or
 * removes what it did not. The caller closes it. Errors: ND_EIO; ND_EDATA when another pack holds
 * the lock. */
nd_status nd_pack_staging_open(const char *out, nd_pack_staging *staging);

/* Call it before writing by path: OUT is still the directory that was locked. Errors: ND_EDATA when
 * it was renamed or removed, and OUT may be another pack's. */
nd_status nd_pack_staging_confirm(const nd_pack_staging *staging);

/* Runs steps 3 to 5, for the files in `path` and their index. Errors: ND_EIO; the next pack
 * continues. */
nd_status nd_pack_staging_publish(nd_pack_staging *staging);

/* Removes unpublished files and unlocks. */
void nd_pack_staging_close(nd_pack_staging *staging);

/* Whether `name` is like a shard's (train_00000.h5). No other file is replaced or removed. */
bool nd_pack_staging_owns(const char *name);
