/* The vector loops of the fast layer, one table for each instruction set. They work on rows of f32
 * in cache; what touches views, dtypes, threads and memory lives in fast_*.c and is compiled once.
 *
 * Each table comes from fast_kernels_body.h, compiled by fast_kernels_<isa>.c. For one table a
 * result depends on the arguments alone; between tables it may differ in the last bits, because
 * sums run over a different number of lanes. Outputs may be the same array as an input of the same
 * type. */
#pragma once

#include "core/backend/backend.h"
#include "core/backend/row_kernels.h"
#include "core/base/dynamic_code.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    ND_NIBBLES_MAX = 128, /* in one call of decode_nibbles */
    ND_SOFTMAX_TILE = 128,
    ND_STRIP = 64, /* rows and columns that are quantized together */
    ND_PANEL = 128 /* columns whose maxima are found together */
};

/* Rows of f32 or bf16, `stride` elements apart, each with a factor. */
typedef struct nd_scaled_rows {
    const void *first;
    const float *factors; /* [rows] */
    int64_t stride, rows;
    bool bf16;
} nd_scaled_rows;

typedef struct nd_decay_rule {
    float decay;     /* fraction of w removed */
    bool cautious;   /* only where update * w >= 0 */
    float step_size; /* of the update */
} nd_decay_rule;

typedef struct nd_adamw_rule {
    float beta1, beta2, epsilon;
    float gradient_scale;
    float inverse_correction1, inverse_correction2;
    nd_decay_rule decay;
} nd_adamw_rule;

/* The gradient row of the cross-entropy: e (base + slope (x - lse)) - floor. */
typedef struct nd_softmax_gradient {
    float lse, base, slope, floor;
} nd_softmax_gradient;

typedef struct nd_fast_kernels {
    const char *name;

    /* Conversions. */

    void (*load_bf16)(float *y, const uint16_t *x, int64_t n);
    void (*store_bf16)(uint16_t *y, const float *x, int64_t n);
    /* Element i rounds with word i % 4 of philox(key, 2, i / 4); `first` is a multiple of 4. */
    void (*store_bf16_stochastic)(uint16_t *y, const float *x, uint64_t key, int64_t first,
                                  int64_t n);
    void (*load_i8)(float *y, const int8_t *x, float scale, int64_t n); /* y = scale x */
    void (*i8_to_bf16)(uint16_t *y, const int8_t *x, int64_t n);
    void (*load_i32)(float *y, const int32_t *x, float scale, int64_t n); /* y = scale x */
    void (*load_i32_as_bf16)(uint16_t *y, const int32_t *x, float scale, int64_t n);
    /* The same, past the caches where y is aligned to 64 bytes: for more than they hold. */
    void (*stream_i32_as_bf16)(uint16_t *y, const int32_t *x, float scale, int64_t n);
    void (*drain)(void); /* after streaming, before another thread may read */
    void (*add_i32)(float *y, const int32_t *x, const float *scale, int64_t n); /* y += scale x */
    void (*quantize)(int8_t *q, const float *x, float factor, int64_t n);
    /* largest[j] = the largest |factor x| of column j < n <= ND_PANEL; NaN when there is one. */
    void (*max_panel)(float *largest, const nd_scaled_rows *x, int64_t n);
    /* The transpose of these columns of at most ND_STRIP rows: q[j stride + i] is quantize of row
     * i's factor x, with factors[j]. */
    void (*quantize_strip)(int8_t *q, int64_t stride, const nd_scaled_rows *x, const float *factors,
                           int64_t n);
    /* y [32, 32] = xᵀ. */
    void (*transpose_bf16)(uint16_t *y, int64_t y_stride, const uint16_t *x, int64_t x_stride);
    void (*ternarize)(int8_t *c, const float *w, float half_scale, int64_t n);
    void (*pack)(uint8_t *packed, const int8_t *c, int64_t bytes);
    void (*unpack)(int8_t *c, const uint8_t *packed, int64_t bytes);
    /* Byte i: codes i + k stride, k < 5, in base 3. */
    void (*pack_trits)(uint8_t *packed, const int8_t *c, int64_t stride, int64_t bytes);
    void (*unpack_trits)(int8_t *c, const uint8_t *packed, int64_t stride, int64_t bytes);

    /* Reductions. */

    double (*sum)(const float *x, int64_t n);
    double (*sum_abs)(const float *x, int64_t n);
    double (*sum_squares)(const float *x, int64_t n);
    double (*dot)(const float *x, const float *y, int64_t n);
    double (*dot3)(const float *x, const float *y, const float *z, int64_t n);
    float (*max)(const float *x, int64_t n);

    /* Rows. */

    void (*scale)(float *y, const float *x, float s, int64_t n);      /* y = s x */
    void (*add)(float *y, const float *x, const float *z, int64_t n); /* y = x + z */
    void (*axpby)(float *y, float alpha, const float *x, float beta, int64_t n);
    void (*norm)(float *y, const float *x, const float *w, float r, int64_t n); /* y = x r w */
    /* dx = r dy w - c x */
    void (*norm_backward)(float *dx, const float *dy, const float *x, const float *w, float r,
                          float c, int64_t n);
    void (*multiply_add)(float *y, const float *a, const float *b, float s,
                         int64_t n); /* += s a b */
    void (*swiglu)(float *h, const float *gate, const float *up, int64_t n);
    void (*swiglu_and_sigmoid)(float *h, float *s, const float *gate, const float *up, int64_t n);
    void (*swiglu_backward)(float *dgate, float *dup, const float *dh, const float *gate,
                            const float *up, const float *sigmoid, int64_t n);
    /* Rotates one head by the angles of one position; sign -1 rotates back. */
    void (*rotate_halves)(float *x, const float *cosine, const float *sine, float sign,
                          int64_t half);
    void (*rotate_pairs)(float *x, const float *cosine, const float *sine, float sign,
                         int64_t half);

    /* Softmax. */

    /* e = exp(x - largest); *sum = sum e; *tilt = sum e (x - largest). */
    void (*softmax_moments)(float *e, const float *x, float largest, double *sum, double *tilt,
                            int64_t n);
    void (*softmax_gradient)(float *x, const float *e, const nd_softmax_gradient *g, int64_t n);
    /* One row of scores in whole tiles of ND_SOFTMAX_TILE columns, `stride` elements apart, `total`
     * columns in all: the first `visible` become exp(s x - shift), shift = s max x, the others 0.
     * Returns the sum. */
    double (*softmax_tiles)(float *x, int64_t stride, int64_t visible, int64_t total, float s,
                            float *shift);
    double (*softmax_tiles_bf16)(uint16_t *narrow, const float *x, int64_t stride, int64_t visible,
                                 int64_t total, float s, float *shift);
    /* Rows of scores p and of d = dout v, one row a key and one column a query, turn into the
     * probabilities exp(s p - lse[i]) and their gradients p (d - delta[i]) s. */
    void (*attention_gradient)(float *p, float *d, const float *lse, const float *delta, float s,
                               int64_t rows, int64_t n);
    /* The same, into bf16; n is a multiple of 16, as a block of queries has rows. */
    void (*attention_gradient_bf16)(uint16_t *narrow_p, uint16_t *narrow_d, const float *p,
                                    const float *d, const float *lse, const float *delta, float s,
                                    int64_t rows, int64_t n);
    float (*dot_short)(const float *x, const float *y, int64_t n); /* f32 sum, for head_dim */

    /* Optimizers. */

    void (*momentum)(float *u, float *m, const float *g, float beta, float scale, bool nesterov,
                     int64_t n);
    void (*update)(float *w, const float *u, const nd_decay_rule *rule, int64_t n);
    void (*adamw)(float *w, float *m, float *v, const float *g, const nd_adamw_rule *rule,
                  int64_t n);

    /* Quantised state. */

    float (*max_magnitude)(const float *x, int64_t n); /* max |x|; NaN when there is one */
    /* largest = max(largest, |factor x|), with NaN likewise. */
    void (*max_columns)(float *largest, const float *x, float factor, int64_t n);
    /* Codes of x factor, and y = scale times their values. */
    void (*encode_dynamic)(uint8_t *q, const float *x, float factor, const nd_dynamic_code *code,
                           int64_t n);
    void (*decode_dynamic)(float *y, const uint8_t *q, float scale, const nd_dynamic_code *code,
                           int64_t n);
    /* A row of a tile: core/base/nibble_code.h of x max(factor, factors[i]), and y = beta y + its
     * value times min(scale, scales[i]). The last half byte of an odd n is 0. */
    void (*encode_nibbles)(uint8_t *q, const float *x, float factor, const float *factors,
                           int64_t n);
    void (*decode_nibbles)(float *y, const uint8_t *q, float scale, const float *scales, float beta,
                           int64_t n);

    /* Messages. */

    int64_t (*compress_floats)(uint8_t *out, int64_t room, const float *x, int n);
    int64_t (*decompress_floats)(float *y, const uint8_t *in, int64_t length, int n, bool add);
} nd_fast_kernels;

/* NULL where the compiler's target lacks the instruction set. */
const nd_fast_kernels *nd_fast_kernels_avx512_bf16(void);
const nd_fast_kernels *nd_fast_kernels_avx512(void);
const nd_fast_kernels *nd_fast_kernels_avx2(void);
const nd_fast_kernels *nd_fast_kernels_generic(void);

/* The table for an instruction set that this CPU has: the best one within it. */
const nd_fast_kernels *nd_fast_kernels_for(nd_cpu_isa isa);

/* The table within the limit that is in force in this process. */
const nd_fast_kernels *nd_fast_kernels_in_force(void);
