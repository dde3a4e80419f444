/* One large product cut into tiles of c, each computed by one thread. */
#pragma once

#include "core/backend/cpu/product.h"

/* Computes the product, with the same bits for any number of threads; sums of products of i8 are
 * exact on every CPU. Errors: ND_ENOMEM, ND_EINTERNAL when oneDNN refuses. */
nd_status nd_fast_multiply(nd_cpu_fast *fast, const nd_product *product);

/* Up to ND_PRODUCTS_MAX products with the same m and n, types and layouts, which `finish` adds up:
 * each tile of one after another where that keeps the tile of the result in cache. Errors: as
 * nd_fast_multiply. */
enum { ND_PRODUCTS_MAX = 2 };
nd_status nd_fast_multiply_several(nd_cpu_fast *fast, const nd_product *products, int count);

/* Whether the project's own panels compute this product, not oneDNN: looks at m, k, a's dtype, and
 * whether there is a `finish`. */
bool nd_fast_in_panels(const nd_cpu_fast *fast, const nd_product *product);

/* Rows of c in one tile, a function of the shape alone. */
int64_t nd_fast_tile_rows(int64_t m);

/* The dtype for a product of floats: bf16 if requested and fast on this CPU, else f32. */
nd_dtype nd_fast_product_dtype(const nd_cpu_fast *fast, bool bf16);

/* Whether a result is so large that it had better not be read into the caches to be written: where
 * AMX multiplies, memory is what a product waits for. */
static inline bool nd_fast_streams(const nd_cpu_fast *fast, nd_view c)
{
    enum { MIN_BYTES = 2 << 20 };
    return fast->isa == ND_CPU_ISA_AMX && nd_view_bytes(nd_as_const(c)) >= MIN_BYTES;
}

/* A product's `finish`: row i of exact integer sums times scale * largest[i] / 127, stored in c or
 * added to it. */
typedef struct nd_scaled_sums {
    nd_view c;
    float scale;
    const float *largest; /* [rows] */
    bool accumulate;
    bool stream; /* past the caches */
} nd_scaled_sums;
void nd_fast_finish_scaled(const nd_fast_kernels *k, const void *context, nd_tile tile);

/* x as `dtype`: x itself if it is, else a copy in `memory`, which needs these bytes (0: none). */
size_t nd_fast_converted_bytes(nd_cview x, nd_dtype dtype);
nd_cview nd_fast_as_dtype(nd_cpu_fast *fast, nd_cview x, nd_dtype dtype, void *memory);
