/* The fast layer's state, shared by fast_*.c.
 *
 * An op looks up its products and grows its memory first, in serial code, and only then enters its
 * OpenMP region, so that nothing inside a region allocates. Work is cut into pieces by shape alone,
 * never by the number of threads, and each piece is computed by one thread: results are the same to
 * the bit for any number of threads. */
#pragma once

#include "core/backend/cpu/cpu_isa.h"
#include "core/backend/cpu/fast_kernels.h"
#include "core/backend/cpu/reference.h"

/* A buffer that grows and is kept. */
typedef struct nd_fast_arena {
    void *memory;
    size_t bytes;
} nd_fast_arena;

typedef struct nd_matmul_cache nd_matmul_cache;

typedef struct nd_cpu_fast {
    nd_backend_ops reference; /* the slots that were replaced */
    nd_cpu_isa isa;
    const nd_fast_kernels *kernels;
    int threads, most_threads; /* in use; created for */
    nd_matmul_cache *matmuls;
    /* The project's own products, of integers and of floats; NULL: oneDNN's. */
    const struct nd_panel_kind *panels, *float_panels;
    bool exact_ternary;   /* oneDNN's products of 8-bit integers and {-1, 0, 1} are exact */
    bool exact_int8;      /* those of two 8-bit integers too */
    nd_fast_arena shared; /* operands of one op, converted */
    nd_fast_arena packed; /* the right operand of one product */
    nd_fast_arena floats; /* 8-bit operands as f32, where oneDNN's integer products are not exact */
    nd_fast_arena *private; /* [most_threads]: rows and blocks of one thread */
    nd_fast_arena rope;     /* cosines and sines, kept between calls */
    int64_t rope_head_dim, rope_positions;
    double rope_base;
} nd_cpu_fast;

/* The fast state behind a CPU backend. */
static inline nd_cpu_fast *nd_cpu_fast_of(const nd_backend *backend)
{
    return backend->context;
}

/* Grows to at least `bytes`, aligned to 64; the content is lost. Errors: ND_ENOMEM. */
nd_status nd_fast_grow(nd_fast_arena *arena, size_t bytes);
nd_status nd_fast_grow_private(nd_cpu_fast *fast, size_t bytes);

/* `count` elements of `size` bytes, rounded up so that the next piece is aligned too. */
static inline size_t nd_fast_bytes(int64_t count, size_t size)
{
    return ((size_t)count * size + 63) / 64 * 64;
}

/* The calling thread's number inside an op's parallel region. */
int nd_fast_thread(void);

/* Whether this CPU multiplies in bf16 faster than in f32. */
bool nd_fast_multiplies_bf16(const nd_cpu_fast *fast);

static inline int64_t nd_fast_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}
static inline int64_t nd_fast_max(int64_t a, int64_t b)
{
    return a > b ? a : b;
}
static inline int64_t nd_fast_ceil(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* How many threads pay off for elementwise work on `elements` elements. */
static inline int nd_fast_team(const nd_cpu_fast *fast, int64_t elements)
{
    return elements < 16384 ? 1 : fast->threads;
}

static inline bool nd_fast_covers(nd_dtype dtype)
{
    return dtype == ND_F32 || dtype == ND_BF16;
}

/* Elements [first, first + n) of a view as f32: its own memory if it is f32, else `buffer`. */
static inline const float *nd_fast_load(const nd_fast_kernels *k, nd_cview v, int64_t first,
                                        int64_t n, float *buffer)
{
    if (v.dtype == ND_F32)
        return (const float *)v.data + first;
    k->load_bf16(buffer, (const uint16_t *)v.data + first, n);
    return buffer;
}

/* The destination of elements for nd_fast_store: the view itself if f32, else `buffer`. */
static inline float *nd_fast_target(nd_view v, int64_t first, float *buffer)
{
    return v.dtype == ND_F32 ? (float *)v.data + first : buffer;
}

static inline void nd_fast_store(const nd_fast_kernels *k, nd_view v, int64_t first, int64_t n,
                                 const float *computed)
{
    if (v.dtype == ND_BF16)
        k->store_bf16((uint16_t *)v.data + first, computed, n);
}

static inline nd_adamw_rule nd_fast_adamw_rule(const nd_adamw_params *p)
{
    return (nd_adamw_rule){
        .beta1 = p->beta1,
        .beta2 = p->beta2,
        .epsilon = p->epsilon,
        .gradient_scale = p->gradient_scale,
        .inverse_correction1 = 1.0f / p->correction1,
        .inverse_correction2 = 1.0f / p->correction2,
        .decay = {p->learning_rate * p->weight_decay, p->cautious_decay, p->learning_rate}};
}
