/* What `info FILE.h5` prints about a shard. */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>
#include <stdio.h>

/* With `verify`, every chunk's checksum, every token's range and every document offset is checked
 * too. Errors: ND_EDATA as nd_shard_open and nd_shard_read give them. */
nd_status nd_shard_info_print(const char *path, bool verify, FILE *out);

/* Reads all of a shard and checks all that `verify` checks. Errors: as above. */
nd_status nd_shard_verify(const char *path);
