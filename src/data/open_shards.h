/* Which shards' files are open: at most a part of what the process may open (ulimit -n), whatever their number. The
 * one that was used longest ago is closed for another. */
#pragma once

#include "data/shard.h"

typedef struct nd_open_shards nd_open_shards;

/* For `count` shards (borrowed, without open files; they outlive it). Errors: ND_ENOMEM. */
nd_status nd_open_shards_create(const nd_shard *shards, int count, nd_open_shards **open);
/* Nobody may be reading. */
void nd_open_shards_close(nd_open_shards *open);

/* nd_shard_read of shard `number`. Thread-safe. Errors: as there; ND_EDATA when the file is another one by now, or
 * when no file can be opened at all. */
nd_status nd_open_shards_read(nd_open_shards *open, int number, int64_t first, int64_t count,
                              int32_t *tokens);
