/* One large product cut into tiles of c, each computed by one thread. */
#pragma once

#include "core/backend/cpu/product.h"

/* The same bits for any number of threads; sums of products of i8 are exact, whatever the CPU.
 * Errors: ND_ENOMEM, ND_EINTERNAL when oneDNN refuses. */
nd_status nd_fast_multiply(nd_cpu_fast *fast, const nd_product *product);

/* Rows of c in one tile, a function of the shape alone. */
int64_t nd_fast_tile_rows(int64_t m);

/* The dtype of a product's floats: bf16 if requested and only where it is fast. */
nd_dtype nd_fast_product_dtype(const nd_cpu_fast *fast, bool bf16);

/* Bytes, rounded up, of x converted to `dtype` (0: it has it); x, or its values in `memory`. */
size_t nd_fast_converted_bytes(nd_cview x, nd_dtype dtype);
nd_cview nd_fast_as_dtype(nd_cpu_fast *fast, nd_cview x, nd_dtype dtype, void *memory);
