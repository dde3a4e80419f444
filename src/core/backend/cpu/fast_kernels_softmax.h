/* The softmax kernels of the loss and of attention, included by fast_kernels_body.h. */

/* Adds exp(s x - shift) by lanes, which a row sums once: a sum over lanes takes as long as ten
 * vectors. */
static inline void exp_by_lanes(double *totals, float *y, const float *x, float s, float shift,
                                int64_t n)
{
    float sums[ND_LANES] = {0}, rest[ND_LANES] = {0};
    int64_t i = 0;
    for (; i + ND_LANES <= n; i += ND_LANES)
#pragma omp simd
        for (int64_t j = 0; j < ND_LANES; j++) {
            const float e = exp_fast(s * x[i + j] - shift);
            y[i + j] = e;
            sums[j] += e;
        }
    if (i < n) {
        memcpy(rest, x + i, (size_t)(n - i) * sizeof *x);
#pragma omp simd
        for (int64_t j = 0; j < ND_LANES; j++) {
            rest[j] = select_float(i + j < n, exp_fast(s * rest[j] - shift), 0.0f);
            sums[j] += rest[j];
        }
        memcpy(y + i, rest, (size_t)(n - i) * sizeof *y);
    }
#pragma omp simd
    for (int64_t j = 0; j < ND_LANES; j++)
        totals[j] += (double)sums[j];
}

static inline double sum_of_lanes(double *lanes)
{
    for (int width = ND_LANES / 2; width > 0; width /= 2)
        for (int j = 0; j < width; j++)
            lanes[j] += lanes[j + width];
    return lanes[0];
}

static void softmax_moments(float *e, const float *x, float largest, double *sum, double *tilt,
                            int64_t n)
{
    double total = 0.0, tilted = 0.0;
    for (int64_t start = 0; start < n; start += 1024) {
        const int64_t end = n - start < 1024 ? n : start + 1024;
        float s0 = 0.0f, s1 = 0.0f;
#pragma omp simd reduction(+ : s0, s1)
        for (int64_t i = start; i < end; i++) {
            const float below = x[i] - largest;
            e[i] = exp_fast(below);
            s0 += e[i];
            s1 += e[i] * below;
        }
        total += (double)s0;
        tilted += (double)s1;
    }
    *sum = total;
    *tilt = tilted;
}

static void softmax_gradient(float *x, const float *e, const nd_softmax_gradient *g, int64_t n)
{
    const nd_softmax_gradient c = *g;
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        x[i] = e[i] * (c.base + c.slope * (x[i] - c.lse)) - c.floor;
}

static float max_of_tiles(const float *x, int64_t stride, int64_t width, int64_t visible)
{
    const float least = -INFINITY;
    max_lanes maxima = least + (max_lanes){0};
    for (int64_t at = 0; at < visible; at += width)
        max_by_lanes(&maxima, x + at / width * stride, visible - at < width ? visible - at : width);
    return max_of_lanes(&maxima);
}

static double softmax_tiles(float *x, int64_t stride, int64_t width, int64_t visible, int64_t total,
                            float s, float *shift)
{
    double totals[ND_LANES] = {0};
    *shift = s * max_of_tiles(x, stride, width, visible);
    for (int64_t at = 0; at < total; at += width) {
        float *tile = x + at / width * stride;
        const int64_t left = visible - at;
        const int64_t n = left < 0 ? 0 : left < width ? left : width;
        for (int64_t i = 0; i < n; i += ND_SOFTMAX_TILE)
            exp_by_lanes(totals, tile + i, tile + i, s, *shift,
                         n - i < ND_SOFTMAX_TILE ? n - i : ND_SOFTMAX_TILE);
        for (int64_t i = n; i < width; i++)
            tile[i] = 0.0f;
    }
    return sum_of_lanes(totals);
}

static double softmax_tiles_bf16(uint16_t *narrow, const float *x, int64_t stride, int64_t visible,
                                 int64_t total, float s, float *shift)
{
    double totals[ND_LANES] = {0};
    *shift = s * max_of_tiles(x, stride, ND_SOFTMAX_TILE, visible);
    for (int64_t at = 0; at < total; at += ND_SOFTMAX_TILE, x += stride, narrow += stride) {
        const int64_t left = visible - at;
        const int64_t n = left < 0 ? 0 : left < ND_SOFTMAX_TILE ? left : ND_SOFTMAX_TILE;
        float row[ND_SOFTMAX_TILE];
        exp_by_lanes(totals, row, x, s, *shift, n);
        store_bf16(narrow, row, n);
        memset(narrow + n, 0, (size_t)(ND_SOFTMAX_TILE - n) * sizeof *narrow);
    }
    return sum_of_lanes(totals);
}

static void attention_gradient(float *p, float *d, const float *lse, const float *delta, float s,
                               int64_t rows, int64_t n)
{
    for (int64_t row = 0; row < rows; row++, p += n, d += n) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            const float probability = exp_fast(s * p[i] - lse[i]);
            p[i] = probability;
            d[i] = probability * (d[i] - delta[i]) * s;
        }
    }
}

static void attention_gradient_bf16(uint16_t *narrow_p, uint16_t *narrow_d, const float *p,
                                    const float *d, const float *lse, const float *delta, float s,
                                    int64_t rows, int64_t n)
{
    enum { LANES = 64 };
    float probability[LANES], gradient[LANES];
    for (int64_t row = 0; row < rows; row++, p += n, d += n, narrow_p += n, narrow_d += n)
        for (int64_t at = 0; at < n; at += LANES) {
            const int64_t count = n - at < LANES ? n - at : LANES;
#pragma omp simd
            for (int64_t i = 0; i < count; i++) {
                probability[i] = exp_fast(s * p[at + i] - lse[at + i]);
                gradient[i] = probability[i] * (d[at + i] - delta[at + i]) * s;
            }
            store_bf16(narrow_p + at, probability, count);
            store_bf16(narrow_d + at, gradient, count);
        }
}
