/* Numbers on the command line, such as 4096, 100M or 1.5G (K, M and G are powers of 1000). */
#pragma once

#include "core/base/error.h"

#include <stdint.h>

/* Errors: ND_ECONFIG naming the flag, the text and the range allowed. */
nd_status nd_cli_parse_integer(const char *flag, const char *text, int64_t least, int64_t most,
                               int64_t *value);
nd_status nd_cli_parse_fraction(const char *flag, const char *text, double *value);
