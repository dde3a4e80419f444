/* What a dataset is: which tokens in which order, so that two can be compared and the difference named. */
#pragma once

#include "data/dataset.h"

#include <stdio.h>

/* Lines "key = value" (core/base/facts.h): the length of windows and the seed of their order, then the
 * shards in their order with the size and, from the index, the SHA-256 of each, or the synthetic
 * text; then, in keys that begin with ND_DATA_HELD_OUT, the shards of `val`, which may be NULL. The names
 * of directories are no part of it. Errors: ND_EDATA naming the shard. */
nd_status nd_data_identity_write(const nd_dataset *train, const nd_dataset *val,
                                 uint64_t order_seed, FILE *out);

#define ND_DATA_HELD_OUT "held-out "
