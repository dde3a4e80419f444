/* The kernels of quantized state, included by fast_kernels_body.h after `select_float`. */
/* The bits of magnitudes compare like the floats, with NaN above infinity. */
static float max_magnitude(const float *x, int64_t n)
{
    int32_t largest = 0;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < n; i++) {
        const int32_t magnitude = (int32_t)(nd_float_bits(x[i]) & 0x7fffffffu);
        largest = magnitude > largest ? magnitude : largest;
    }
    return nd_float_from_bits((uint32_t)largest);
}

static void max_columns(float *largest, const float *x, float factor, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        const int32_t magnitude = (int32_t)(nd_float_bits(x[i] * factor) & 0x7fffffffu);
        const int32_t before = (int32_t)nd_float_bits(largest[i]);
        largest[i] = nd_float_from_bits((uint32_t)(magnitude > before ? magnitude : before));
    }
}

/* Estimates the index from the cell within the decade; the limits correct it by at most one. */
static void encode_dynamic(uint8_t *q, const float *x, float factor, const nd_dynamic_code *code,
                           int64_t n)
{
    static const float lows[] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f};
    static const float inverse_widths[] = {1e6f, 1e5f, 1e4f, 1e3f, 1e2f, 1e1f, 1.0f};
    const float *limits = code->limits;
    const float cells0 = code->has_sign ? 1.0f : 2.0f, highest = (float)(code->count - 1);
    const float offset = code->has_sign ? 0.0f : 1.0f;
    const uint32_t sign_bit = code->has_sign ? 0x80000000u : 0u;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        const float a = fabsf(x[i] * factor);
        float cells = cells0, inverse_width = inverse_widths[0];
        for (int d = 1; d < ND_DYNAMIC_DECADES; d++) {
            const bool above = a >= lows[d - 1];
            cells = select_float(above, cells0 * (float)(1 << d), cells);
            inverse_width = select_float(above, inverse_widths[d], inverse_width);
        }
        const float at = cells - offset + (a * inverse_width - 0.1f) * (cells * (1.0f / 0.9f));
        const float bounded = select_float(at > 1.0f, at, 1.0f);
        const int32_t guess = (int32_t)select_float(bounded < highest, bounded, highest);
        const int32_t index = guess + (a > limits[guess]) - (a <= limits[guess - 1]);
        const uint32_t sign = (nd_float_bits(x[i]) & sign_bit) >> 24;
        q[i] = (uint8_t)((uint32_t)index | sign);
    }
}

static void decode_dynamic(float *y, const uint8_t *q, float scale_y, const nd_dynamic_code *code,
                           int64_t n)
{
    const float *values = code->values;
    const uint32_t sign_bit = code->has_sign ? ND_DYNAMIC_SIGN : 0u;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        const uint32_t sign = (q[i] & sign_bit) << 24;
        const float magnitude = scale_y * values[q[i] & ~sign_bit];
        y[i] = nd_float_from_bits(nd_float_bits(magnitude) ^ sign);
    }
}

static inline uint32_t nibble(float x, float factor, float column_factor)
{
    const float scaled = fabsf(x * select_float(factor > column_factor, factor, column_factor));
    uint32_t index = (nd_float_bits(x) >> 31) * ND_NIBBLE_SIGN;
    for (int k = 0; k < ND_NIBBLE_LEVELS - 1; k++)
        index += (uint32_t)(scaled > nd_nibble_limits[k]);
    return index;
}

static void encode_nibbles(uint8_t *q, const float *x, float factor, const float *factors,
                           int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n / 2; i++)
        q[i] = (uint8_t)(nibble(x[2 * i], factor, factors[2 * i]) |
                         nibble(x[2 * i + 1], factor, factors[2 * i + 1]) << 4);
    if (n & 1)
        q[n / 2] = (uint8_t)nibble(x[n - 1], factor, factors[n - 1]);
}

static void decode_nibbles(float *y, const uint8_t *q, float scale_y, const float *scales,
                           float beta, int64_t n)
{
    float values[ND_NIBBLES_MAX];
    float signed_levels[2 * ND_NIBBLE_LEVELS];
    for (int k = 0; k < ND_NIBBLE_LEVELS; k++) {
        signed_levels[k] = nd_nibble_levels[k];
        signed_levels[k + ND_NIBBLE_SIGN] = -nd_nibble_levels[k];
    }
    for (int64_t i = 0; i < n / 2; i++) {
        values[2 * i] = signed_levels[q[i] & 15u];
        values[2 * i + 1] = signed_levels[q[i] >> 4];
    }
    if (n & 1)
        values[n - 1] = signed_levels[q[n / 2] & 15u];
    const bool keep = beta != 0.0f;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        const float s = select_float(scale_y < scales[i], scale_y, scales[i]);
        y[i] = select_float(keep, y[i], 0.0f) + values[i] * s;
    }
}
