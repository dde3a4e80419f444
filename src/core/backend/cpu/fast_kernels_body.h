/* The kernels of fast_kernels.h, included once by each fast_kernels_<isa>.c, which names the
 * instruction set in ND_KERNEL_ISA. Plain loops that the compiler turns into vectors. */
#include "core/backend/cpu/fast_kernels.h"
#include "core/base/float_formats.h"
#include "core/base/nibble_code.h"
#include "core/base/philox.h"

#include <math.h>
#include <string.h>

/* condition ? x : y on bits: GCC does not vectorise the expression if comparisons may trap. */
static inline float select_float(bool condition, float x, float y)
{
    const uint32_t mask = 0u - (uint32_t)condition;
    return nd_float_from_bits((nd_float_bits(x) & mask) | (nd_float_bits(y) & ~mask));
}

/* exp(x) within 2 ulp for |x| <= 87, where neither it nor its inverse is subnormal; beyond, the
 * value at the end. Cephes' polynomial on [-ln2/2, ln2/2]. */
static inline float exp_fast(float x)
{
    const float above = select_float(x < -87.0f, -87.0f, x);
    const float clamped = select_float(above > 87.0f, 87.0f, above);
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    const float shifted = clamped * 1.44269504f + magic;
    const float k = shifted - magic;
    const float r = (clamped - k * 0.693359375f) + k * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * nd_float_from_bits((nd_float_bits(shifted) - nd_float_bits(magic) + 127u) << 23);
}

static inline float sigmoid(float z)
{
    return 1.0f / (1.0f + exp_fast(-z));
}

/* nd_bf16_from_float without a branch. */
static inline uint16_t round_bf16(float x)
{
    const uint32_t bits = nd_float_bits(x);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const uint32_t quiet = (bits >> 16) | 0x40u;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

static void load_bf16(float *y, const uint16_t *x, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = nd_float_from_bits((uint32_t)x[i] << 16);
}

#ifdef __AVX512BF16__
#include <immintrin.h>

/* The processor's own rounding, which takes subnormal values as 0, wherever in a row they are. */
static inline void store_bf16(uint16_t *y, const float *x, int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m256bh rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(x + i));
        memcpy(y + i, &rounded, sizeof rounded);
    }
    if (i < n) {
        const __mmask16 rest = (__mmask16)((1u << (n - i)) - 1u);
        const __m256bh rounded = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(rest, x + i));
        memcpy(y + i, &rounded, (size_t)(n - i) * sizeof *y);
    }
}
#else
static inline void store_bf16(uint16_t *y, const float *x, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = round_bf16(x[i]);
}
#endif

/* Lane j is one block of Philox4x32-10 (core/base/rng.c), whose four words round four elements. */
static void store_bf16_stochastic(uint16_t *y, const float *x, uint64_t key, int64_t first,
                                  int64_t n)
{
    enum { LANES = 64 };
    uint32_t words[4 * LANES];
    for (int64_t at = 0; at < n; at += 4 * LANES) {
        const uint64_t block = (uint64_t)(first + at) / 4;
#pragma omp simd
        for (int j = 0; j < LANES; j++) {
            uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
            const uint64_t counter = block + (uint64_t)j;
            uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32), c2 = 2, c3 = 0;
            ND_PHILOX(k0, k1, c0, c1, c2, c3)
            words[4 * j] = c0;
            words[4 * j + 1] = c1;
            words[4 * j + 2] = c2;
            words[4 * j + 3] = c3;
        }
        const int64_t count = n - at < 4 * LANES ? n - at : 4 * LANES;
#pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            const uint32_t bits = nd_float_bits(x[at + i]);
            const uint32_t finite = 0u - (uint32_t)((bits & 0x7f800000u) != 0x7f800000u);
            const uint32_t moved = (bits + (words[i] & 0xffffu)) >> 16;
            y[at + i] = (uint16_t)((moved & finite) | (round_bf16(x[at + i]) & ~finite));
        }
    }
}

static void load_i8(float *y, const int8_t *x, float scale, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = scale * (float)x[i];
}

static void i8_to_bf16(uint16_t *y, const int8_t *x, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = (uint16_t)(nd_float_bits((float)x[i]) >> 16); /* 8 bits fit: exact */
}

static void load_i32(float *y, const int32_t *x, float scale, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = scale * (float)x[i];
}

static void load_i32_as_bf16(uint16_t *y, const int32_t *x, float scale, int64_t n)
{
    enum { LANES = 64 };
    float scaled[LANES];
    for (int64_t at = 0; at < n; at += LANES) {
        const int64_t count = n - at < LANES ? n - at : LANES;
#pragma omp simd
        for (int64_t i = 0; i < count; i++)
            scaled[i] = scale * (float)x[at + i];
        store_bf16(y + at, scaled, count);
    }
}

/* Rows of whole lines past the caches: such a row is written but not read first. */
static void stream_i32_as_bf16(uint16_t *y, const int32_t *x, float scale, int64_t n)
{
    int64_t i = 0;
#ifdef __AVX512BF16__
    const __m512 factor = _mm512_set1_ps(scale);
    for (; ((uintptr_t)y & 63) == 0 && i + 32 <= n; i += 32) {
        const __m512 low = _mm512_cvtepi32_ps(_mm512_loadu_si512(x + i));
        const __m512 high = _mm512_cvtepi32_ps(_mm512_loadu_si512(x + i + 16));
        const __m512bh rounded =
            _mm512_cvtne2ps_pbh(_mm512_mul_ps(factor, high), _mm512_mul_ps(factor, low));
        __m512i line;
        memcpy(&line, &rounded, sizeof line);
        _mm512_stream_si512((void *)(y + i), line);
    }
#endif
    load_i32_as_bf16(y + i, x + i, scale, n - i);
}

static void drain(void)
{
#ifdef __AVX512BF16__
    _mm_sfence();
#endif
}

static void add_i32(float *y, const int32_t *x, const float *scale, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] += scale[i] * (float)x[i];
}

static inline int8_t byte_of(float scaled)
{
    const float magic = 12582912.0f;
    const float above = select_float(scaled < -128.0f, -128.0f, scaled);
    const float clipped = select_float(above > 127.0f, 127.0f, above);
    return (int8_t)(int32_t)(nd_float_bits(clipped + magic) - nd_float_bits(magic));
}

static void quantize(int8_t *q, const float *x, float factor, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        q[i] = byte_of(x[i] * factor);
}

/* A step of the transposition of `count` rows: swaps, in fields of 2 `bits`, the upper halves of
 * row r with the lower halves of row r + distance. */
static inline void swap_halves(uint64_t (*rows)[8], int count, int distance, int bits, uint64_t low)
{
    for (int r = 0; r < count; r++) {
        if (r & distance)
            continue;
#pragma omp simd
        for (int w = 0; w < 8; w++) {
            const uint64_t x = rows[r][w], y = rows[r + distance][w];
            rows[r][w] = (x & low) | (y & low) << bits;
            rows[r + distance][w] = (x >> bits & low) | (y & ~low);
        }
    }
}

/* Eight rows at a time: blocks of eight words of eight bytes, transposed in three steps. */
static void transpose_bytes(int8_t *y, const int8_t *x, int64_t stride)
{
    for (int part = 0; part < 8; part++) {
        uint64_t rows[8][8];
        for (int r = 0; r < 8; r++)
            memcpy(rows[r], x + (8 * part + r) * stride, sizeof rows[r]);
        swap_halves(rows, 8, 4, 32, 0x00000000ffffffffu);
        swap_halves(rows, 8, 2, 16, 0x0000ffff0000ffffu);
        swap_halves(rows, 8, 1, 8, 0x00ff00ff00ff00ffu);
        for (int w = 0; w < 8; w++)
            for (int r = 0; r < 8; r++)
                memcpy(y + (8 * w + r) * 64 + 8 * part, &rows[r][w], 8);
    }
}

static inline float gradient_at(const nd_scaled_rows *x, bool bf16, int64_t row, int64_t i)
{
    const int64_t at = row * x->stride + i;
    return (bf16 ? nd_float_from_bits((uint32_t)((const uint16_t *)x->first)[at] << 16)
                 : ((const float *)x->first)[at]) *
           x->factors[row];
}

/* The bits of magnitudes compare like the floats, with NaN above infinity. */
static inline void max_columns_of(float *largest, const nd_scaled_rows *x, bool bf16, int64_t n)
{
    uint32_t bits[ND_PANEL];
    memset(bits, 0, (size_t)n * sizeof *bits);
    for (int64_t row = 0; row < x->rows; row++)
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            const uint32_t magnitude = nd_float_bits(gradient_at(x, bf16, row, i)) & 0x7fffffffu;
            bits[i] = magnitude > bits[i] ? magnitude : bits[i];
        }
    memcpy(largest, bits, (size_t)n * sizeof *largest);
}

static void max_columns_of_panel(float *largest, const nd_scaled_rows *x, int64_t n)
{
    if (n < ND_PANEL)
        max_columns_of(largest, x, x->bf16, n);
    else if (x->bf16)
        max_columns_of(largest, x, true, ND_PANEL);
    else
        max_columns_of(largest, x, false, ND_PANEL);
}

static inline void quantize_columns_of(int8_t *q, const nd_scaled_rows *x, bool bf16,
                                       const float *factors, int64_t n)
{
    for (int64_t row = 0; row < x->rows; row++)
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            q[row * ND_STRIP + i] = byte_of(gradient_at(x, bf16, row, i) * factors[i]);
}

static void quantize_strip(int8_t *q, int64_t stride, const nd_scaled_rows *x, const float *factors,
                           int64_t n)
{
    int8_t rows[ND_STRIP * ND_STRIP] = {0}, columns[ND_STRIP * ND_STRIP];
    if (n < ND_STRIP)
        quantize_columns_of(rows, x, x->bf16, factors, n);
    else if (x->bf16)
        quantize_columns_of(rows, x, true, factors, ND_STRIP);
    else
        quantize_columns_of(rows, x, false, factors, ND_STRIP);
    transpose_bytes(columns, rows, ND_STRIP);
    for (int64_t i = 0; i < n; i++)
        memcpy(q + i * stride, columns + i * ND_STRIP, (size_t)x->rows);
}

/* Four rows at a time, whose words have four values. */
static void transpose_bf16(uint16_t *y, int64_t y_stride, const uint16_t *x, int64_t x_stride)
{
    for (int part = 0; part < 8; part++) {
        uint64_t rows[4][8];
        for (int r = 0; r < 4; r++)
            memcpy(rows[r], x + (4 * part + r) * x_stride, sizeof rows[r]);
        swap_halves(rows, 4, 2, 32, 0x00000000ffffffffu);
        swap_halves(rows, 4, 1, 16, 0x0000ffff0000ffffu);
        for (int w = 0; w < 8; w++)
            for (int r = 0; r < 4; r++)
                memcpy(y + (4 * w + r) * y_stride + 4 * part, &rows[r][w], 8);
    }
}

/* rint(w / s) is 0 up to and including |w| = s/2, since ties go to even. */
static void ternarize(int8_t *c, const float *w, float half_scale, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        c[i] = (int8_t)((w[i] > half_scale) - (w[i] < -half_scale));
}

static void pack(uint8_t *packed, const int8_t *c, int64_t bytes)
{
#pragma omp simd
    for (int64_t i = 0; i < bytes; i++)
        packed[i] = (uint8_t)((c[4 * i] + 1) | (c[4 * i + 1] + 1) << 2 | (c[4 * i + 2] + 1) << 4 |
                              (c[4 * i + 3] + 1) << 6);
}

/* A byte's four fields are spread over the bytes of a word, then 1 is taken from each byte; the
 * high bits keep the borrows apart. */
static void unpack(int8_t *c, const uint8_t *packed, int64_t bytes)
{
    enum { LANES = 64 };
    uint32_t words[LANES] = {0};
    for (int64_t at = 0; at < bytes; at += LANES) {
        const int64_t n = bytes - at < LANES ? bytes - at : LANES;
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            const uint32_t b = packed[at + i];
            const uint32_t fields = (b | b << 6 | b << 12 | b << 18) & 0x03030303u;
            words[i] = ((fields | 0x80808080u) - 0x01010101u) ^ 0x80808080u;
        }
        /* cppcheck-suppress uninitvar ; the loop wrote all n words */
        memcpy(c + 4 * at, words,
               (size_t)n * sizeof *words); /* little-endian, as x86 and ARM are */
    }
}

static void pack_trits(uint8_t *packed, const int8_t *c, int64_t stride, int64_t bytes)
{
    const int8_t *c1 = c + stride, *c2 = c1 + stride, *c3 = c2 + stride, *c4 = c3 + stride;
#pragma omp simd
    for (int64_t i = 0; i < bytes; i++)
        packed[i] = (uint8_t)(c[i] + 3 * c1[i] + 9 * c2[i] + 27 * c3[i] + 81 * c4[i] + 121);
}

/* 171 x / 512 is x / 3, rounded down, for x < 256. */
static void unpack_trits(int8_t *c, const uint8_t *packed, int64_t stride, int64_t bytes)
{
    int8_t *c1 = c + stride, *c2 = c1 + stride, *c3 = c2 + stride, *c4 = c3 + stride;
#pragma omp simd
    for (int64_t i = 0; i < bytes; i++) {
        const uint16_t x0 = packed[i], x1 = (uint16_t)(x0 * 171u >> 9);
        const uint16_t x2 = (uint16_t)(x1 * 171u >> 9), x3 = (uint16_t)(x2 * 171u >> 9);
        const uint16_t x4 = (uint16_t)(x3 * 171u >> 9);
        c[i] = (int8_t)(x0 - 3 * x1 - 1);
        c1[i] = (int8_t)(x1 - 3 * x2 - 1);
        c2[i] = (int8_t)(x2 - 3 * x3 - 1);
        c3[i] = (int8_t)(x3 - 3 * x4 - 1);
        c4[i] = (int8_t)(x4 - 1);
    }
}

/* A sum over i in double. */
#define SUM(name, term, ...)                                                                       \
    static double name(__VA_ARGS__, int64_t n)                                                     \
    {                                                                                              \
        double sum = 0.0;                                                                          \
        _Pragma("omp simd reduction(+ : sum)") for (int64_t i = 0; i < n; i++) sum += (term);      \
        return sum;                                                                                \
    }
SUM(sum_of, (double)x[i], const float *x)
SUM(sum_abs, (double)fabsf(x[i]), const float *x)
SUM(sum_squares, (double)x[i] * (double)x[i], const float *x)
SUM(dot, (double)x[i] * (double)y[i], const float *x, const float *y)
SUM(dot3, (double)(x[i] * y[i]) * (double)z[i], const float *x, const float *y, const float *z)
#undef SUM

/* By lanes: a maximum that may meet NaN is not a reduction that every compiler vectorises. */
enum { ND_LANES = 16 };
typedef float max_lanes __attribute__((vector_size(ND_LANES * sizeof(float))));

/* The lanes of *maxima, or larger values at x, one vector after another; the rest is padded. */
static inline void max_by_lanes(max_lanes *maxima, const float *x, int64_t n)
{
    typedef int32_t mask __attribute__((vector_size(ND_LANES * sizeof(int32_t))));
    const float least = -INFINITY;
    for (int64_t i = 0; i < n; i += ND_LANES) {
        max_lanes next = least + (max_lanes){0};
        if (i + ND_LANES <= n)
            memcpy(&next, x + i, sizeof next);
        else
            memcpy(&next, x + i, (size_t)(n - i) * sizeof *x);
        const mask above = next > *maxima;
        *maxima = (max_lanes)(((mask)next & above) | ((mask)*maxima & ~above));
    }
}

static inline float max_of_lanes(const max_lanes *maxima)
{
    float lanes[ND_LANES];
    memcpy(lanes, maxima, sizeof lanes);
    for (int width = ND_LANES / 2; width > 0; width /= 2)
        for (int j = 0; j < width; j++)
            lanes[j] = lanes[j + width] > lanes[j] ? lanes[j + width] : lanes[j];
    return lanes[0];
}

static float max_of(const float *x, int64_t n)
{
    const float least = -INFINITY;
    max_lanes maxima = least + (max_lanes){0};
    max_by_lanes(&maxima, x, n);
    return max_of_lanes(&maxima);
}

static void scale(float *y, const float *x, float s, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = s * x[i];
}

static void add(float *y, const float *x, const float *z, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] + z[i];
}

static void axpby(float *y, float alpha, const float *x, float beta, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = alpha * x[i] + beta * y[i];
}

static void norm(float *y, const float *x, const float *w, float r, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] * r * w[i];
}

static void norm_backward(float *dx, const float *dy, const float *x, const float *w, float r,
                          float c, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        dx[i] = r * dy[i] * w[i] - c * x[i];
}

static void multiply_add(float *y, const float *a, const float *b, float s, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] += s * a[i] * b[i];
}

static void swiglu(float *h, const float *gate, const float *up, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        h[i] = gate[i] * sigmoid(gate[i]) * up[i];
}

static void swiglu_and_sigmoid(float *h, float *s, const float *gate, const float *up, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        s[i] = sigmoid(gate[i]);
        h[i] = gate[i] * s[i] * up[i];
    }
}

static void swiglu_backward(float *dgate, float *dup, const float *dh, const float *gate,
                            const float *up, const float *sigmoid_of_gate, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        const float s = sigmoid_of_gate[i], d = dh[i], z = gate[i];
        dgate[i] = d * up[i] * (s * (1.0f + z * (1.0f - s)));
        dup[i] = d * (z * s);
    }
}

static void rotate_halves(float *x, const float *cosine, const float *sine, float sign,
                          int64_t half)
{
    float *second = x + half;
#pragma omp simd
    for (int64_t i = 0; i < half; i++) {
        const float u = x[i], v = second[i], c = cosine[i], s = sign * sine[i];
        x[i] = u * c - v * s;
        second[i] = u * s + v * c;
    }
}

static void rotate_pairs(float *x, const float *cosine, const float *sine, float sign, int64_t half)
{
#pragma omp simd
    for (int64_t i = 0; i < half; i++) {
        const float u = x[2 * i], v = x[2 * i + 1], c = cosine[i], s = sign * sine[i];
        x[2 * i] = u * c - v * s;
        x[2 * i + 1] = u * s + v * c;
    }
}

static float dot_short(const float *x, const float *y, int64_t n)
{
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += x[i] * y[i];
    return sum;
}

static void momentum(float *u, float *m, const float *g, float beta, float scale_g, bool nesterov,
                     int64_t n)
{
    const float ahead = nesterov ? beta : 1.0f, direct = nesterov ? scale_g : 0.0f;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        m[i] = beta * m[i] + scale_g * g[i];
        u[i] = direct * g[i] + ahead * m[i];
    }
}

static inline float decayed(float w, float update, float decay, bool cautious)
{
    const float factor = select_float(!cautious | (update * w >= 0.0f), decay, 0.0f);
    return w - factor * w;
}

static void update(float *w, const float *u, const nd_decay_rule *rule, int64_t n)
{
    const float decay = rule->decay, step = rule->step_size;
    const bool cautious = rule->cautious;
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        w[i] = decayed(w[i], u[i], decay, cautious) - step * u[i];
}

static void adamw(float *w, float *m, float *v, const float *g, const nd_adamw_rule *rule,
                  int64_t n)
{
    const nd_adamw_rule c = *rule;
    const float rest1 = 1.0f - c.beta1, rest2 = 1.0f - c.beta2;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        const float gradient = c.gradient_scale * g[i];
        const float m1 = c.beta1 * m[i] + rest1 * gradient;
        const float m2 = c.beta2 * v[i] + rest2 * gradient * gradient;
        m[i] = m1;
        v[i] = m2;
        const float u =
            m1 * c.inverse_correction1 / (sqrtf(m2 * c.inverse_correction2) + c.epsilon);
        w[i] = decayed(w[i], u, c.decay.decay, c.decay.cautious) - c.decay.step_size * u;
    }
}

#include "core/backend/cpu/fast_kernels_softmax.h"
#include "core/backend/cpu/fast_kernels_state.h"

static const nd_fast_kernels table = {
    .name = ND_KERNEL_ISA,
    .load_bf16 = load_bf16,
    .store_bf16 = store_bf16,
    .store_bf16_stochastic = store_bf16_stochastic,
    .load_i8 = load_i8,
    .i8_to_bf16 = i8_to_bf16,
    .load_i32 = load_i32,
    .load_i32_as_bf16 = load_i32_as_bf16,
    .stream_i32_as_bf16 = stream_i32_as_bf16,
    .drain = drain,
    .add_i32 = add_i32,
    .quantize = quantize,
    .max_panel = max_columns_of_panel,
    .quantize_strip = quantize_strip,
    .transpose_bf16 = transpose_bf16,
    .ternarize = ternarize,
    .pack = pack,
    .unpack = unpack,
    .pack_trits = pack_trits,
    .unpack_trits = unpack_trits,
    .sum = sum_of,
    .sum_abs = sum_abs,
    .sum_squares = sum_squares,
    .dot = dot,
    .dot3 = dot3,
    .max = max_of,
    .scale = scale,
    .add = add,
    .axpby = axpby,
    .norm = norm,
    .norm_backward = norm_backward,
    .multiply_add = multiply_add,
    .swiglu = swiglu,
    .swiglu_and_sigmoid = swiglu_and_sigmoid,
    .swiglu_backward = swiglu_backward,
    .rotate_halves = rotate_halves,
    .rotate_pairs = rotate_pairs,
    .softmax_moments = softmax_moments,
    .softmax_gradient = softmax_gradient,
    .softmax_tiles = softmax_tiles,
    .softmax_tiles_bf16 = softmax_tiles_bf16,
    .attention_gradient = attention_gradient,
    .attention_gradient_bf16 = attention_gradient_bf16,
    .dot_short = dot_short,
    .momentum = momentum,
    .update = update,
    .adamw = adamw,
    .max_magnitude = max_magnitude,
    .max_columns = max_columns,
    .encode_dynamic = encode_dynamic,
    .decode_dynamic = decode_dynamic,
    .encode_nibbles = encode_nibbles,
    .decode_nibbles = decode_nibbles,
};
