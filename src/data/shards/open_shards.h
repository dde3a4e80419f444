/* Limits the open files of many shards to a share of what the process may open (ulimit -n): the
 * least recently used one is closed for another. */
#pragma once

#include "data/shards/shard.h"

typedef struct nd_open_shards nd_open_shards;

/* For `count` shards, which are not owned and have no open files. The caller closes it. Errors:
 * ND_ENOMEM. */
nd_status nd_open_shards_create(const nd_shard *shards, int count, nd_open_shards **open);
/* No thread may be reading. */
void nd_open_shards_close(nd_open_shards *open);

/* nd_shard_read of shard `number`. Thread-safe. Errors: as there; ND_EDATA when the file was
 * replaced, or when the process can open no file at all. */
nd_status nd_open_shards_read(nd_open_shards *open, int number, int64_t first, int64_t count,
                              int32_t *tokens);
