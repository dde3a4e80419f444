/* Which of the files in a directory a pack may replace or remove: those that its index lists or
 * that are shards. */
#pragma once

#include "data/shards/shard_index.h"

typedef struct nd_pack_present {
    const char *out;      /* borrowed */
    nd_shard_index index; /* empty if there is none or it is damaged */
} nd_pack_present;

/* Reads OUT/index.json, which may be damaged or missing. The caller closes it, after an error too.
 * Errors: ND_ECONFIG when that file is not an index of shards; ND_EDATA when it cannot be read. */
nd_status nd_pack_present_open(const char *out, nd_pack_present *present);
void nd_pack_present_close(nd_pack_present *present);

/* Errors: ND_ECONFIG when OUT/NAME, which has a shard's name, is neither listed nor a shard;
 * ND_EDATA or ND_EIO when it cannot be read, so that nobody knows. OK if there is none. */
nd_status nd_pack_present_may_go(const nd_pack_present *present, const char *name);
