/* Rows in f32: what the norms and the gated activation share. */
#pragma once

#include "core/backend/cpu/fast_context.h"

#include <math.h>

/* A norm's weights as f32 at the start of the shared workspace, with `extra` bytes after them. */
typedef struct nd_fast_weights {
    const float *w;
    void *extra;
} nd_fast_weights;

/* w: [1, n], any float type. Valid until the workspace is used again. Errors: ND_ENOMEM. */
nd_status nd_fast_load_weights(nd_cpu_fast *fast, nd_cview w, size_t extra,
                               nd_fast_weights *weights);

/* Buffer `index` of `thread`'s private buffers of n floats each. */
static inline float *nd_fast_buffer(const nd_cpu_fast *fast, int thread, int index, int64_t n)
{
    return (float *)((char *)fast->private[thread].memory +
                     (size_t)index * nd_fast_bytes(n, sizeof(float)));
}

/* 1 / sqrt(mean(x^2) + 1e-5) over n values. */
static inline float nd_fast_norm_scale(const nd_fast_kernels *k, const float *x, int64_t n)
{
    return (float)(1.0 / sqrt(k->sum_squares(x, n) / (double)n + 1e-5));
}

/* q and a of one row, as quantize_rows defines them. */
static inline void nd_fast_quantize_row(const nd_fast_kernels *k, int8_t *q, float *a,
                                        const float *x, int64_t n)
{
    const float largest = k->max_magnitude(x, n);
    *a = largest < 1e-5f ? 1e-5f : largest;
    k->quantize(q, x, isfinite(*a) ? 127.0f / *a : 0.0f, n);
}

/* Sums over rows (a norm's dw) go by blocks, fixed by the number of rows and added in order. */
enum { ND_ROW_BLOCKS = 32 };

static inline int64_t nd_fast_block_rows(int64_t rows)
{
    return nd_fast_max(16, nd_fast_ceil(rows, ND_ROW_BLOCKS));
}

/* dw += the sum of `blocks` rows of partial sums. */
void nd_fast_add_blocks(const nd_cpu_fast *fast, nd_view dw, const float *partial, int64_t blocks);
