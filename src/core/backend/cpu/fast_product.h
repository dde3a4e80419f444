/* One large product cut into tiles of c, each computed by one thread. */
#pragma once

#include "core/backend/cpu/product.h"

/* The same bits for any number of threads; sums of products of i8 are exact, whatever the CPU. Errors:
 * ND_ENOMEM, ND_EINTERNAL when oneDNN refuses. */
nd_status nd_fast_multiply(nd_cpu_fast *fast, const nd_product *product);

/* Rows of c in one tile, a function of the shape alone. */
int64_t nd_fast_tile_rows(int64_t m);
