/* What `info FILE.h5` prints about a shard. */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>
#include <stdio.h>

/* With `verify` it also checks every chunk's checksum, every token's range and every document
 * offset. Errors: those of nd_shard_open and nd_shard_read. */
nd_status nd_shard_info_print(const char *path, bool verify, FILE *out);

/* Reads a whole shard and checks what `verify` checks. Errors: as above. */
nd_status nd_shard_verify(const char *path);
