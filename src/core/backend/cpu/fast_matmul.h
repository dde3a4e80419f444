/* Products of blocks through oneDNN or in panels, each run by the calling thread alone. */
#pragma once

#include "core/backend/cpu/fast_context.h"

/* c[m,n] (+)= op(a) op(b). Rows of the stored a, b and c are lda, ldb and ldc elements apart. The
 * types are f32, bf16 or i8 for a and b, and f32, bf16 or i32 for c; whether i8 products are exact
 * depends on the CPU (product_exactness.h). Dense operands (lda = row length, ...) run fastest. The
 * struct is a key, compared by its bytes: zero it before filling it. */
typedef struct nd_matmul_shape {
    int64_t m, n, k;
    int64_t lda, ldb, ldc;
    nd_dtype a, b, c;
    int32_t transpose_a, transpose_b;
    int32_t accumulate; /* 1: adds to c */
    int32_t packed_b;   /* 1: b is what nd_matmul_pack made; ldb is of the unpacked b */
    int32_t zero;       /* fills the struct, which as a key must have no padding */
} nd_matmul_shape;

typedef struct nd_matmul nd_matmul;

/* A cache of the products met so far, for `threads` threads; its size in bytes. Products of bf16
 * with a packed b are computed in panels of kind `bf16`, if not NULL. Errors: ND_ENOMEM,
 * ND_EINTERNAL with oneDNN's status. */
nd_status nd_matmul_cache_create(int threads, const struct nd_panel_kind *bf16,
                                 nd_matmul_cache **cache);
void nd_matmul_cache_destroy(nd_matmul_cache *cache);
size_t nd_matmul_cache_bytes(const nd_matmul_cache *cache);

/* Finds the product of this shape, which the cache owns and creates at its first use. Serial code
 * only. */
nd_status nd_matmul_find(nd_matmul_cache *cache, const nd_matmul_shape *shape,
                         const nd_matmul **found);

/* Runs the product on the calling thread, number `thread`; false when oneDNN refuses. */
bool nd_matmul_run(const nd_matmul *matmul, int thread, const void *a, const void *b, void *c);

/* For packed_b shapes: the bytes of a packed b; packing by the calling thread, or in serial code by
 * `threads`; whether a b packed for one product serves the other. */
size_t nd_matmul_packed_bytes(const nd_matmul *matmul);
bool nd_matmul_pack(const nd_matmul *matmul, int thread, const void *b, void *packed);
bool nd_matmul_pack_by_all(const nd_matmul *matmul, int threads, const void *b, void *packed);
bool nd_matmul_same_packing(const nd_matmul *x, const nd_matmul *y);
