/* The identity of a dataset (its tokens and their order) as text that shows differences. */
#pragma once

#include "data/dataset.h"

#include <stdio.h>

/* Writes lines "key = value" (core/base/facts.h): the length of windows and the seed of their
 * order; the shards in order, each with its size and the SHA-256 in the index, or the synthetic
 * text; and, in keys that begin with ND_DATA_HELD_OUT, the shards of `val` (may be NULL). It does
 * not name directories. */
void nd_data_identity_write(const nd_dataset *train, const nd_dataset *val, uint64_t order_seed,
                            FILE *out);

#define ND_DATA_HELD_OUT "held-out "
