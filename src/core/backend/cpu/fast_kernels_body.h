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

#include "core/backend/cpu/fast_kernels_conversions.h"

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

#include "core/backend/cpu/fast_kernels_floats.h"
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
    .compress_floats = compress_floats,
    .decompress_floats = decompress_floats,
};
