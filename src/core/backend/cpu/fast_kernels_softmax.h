/* The softmax kernels of the loss and of attention, included by fast_kernels_body.h. */

/* The first n of a tile of ND_SOFTMAX_TILE columns become exp(s x - shift), the others 0. Adds them
 * by lanes, which a row sums once: a sum over lanes takes as long as ten vectors. */
static inline void exp_of_tile(double *totals, float *y, const float *x, float s, float shift,
                               int64_t n)
{
    float sums[ND_LANES] = {0};
    for (int64_t i = 0; i < ND_SOFTMAX_TILE; i += ND_LANES) {
        const int32_t visible = (int32_t)(n - i);
        if (visible <= 0) {
            memset(y + i, 0, ND_LANES * sizeof *y);
            continue;
        }
#pragma omp simd
        for (int32_t j = 0; j < ND_LANES; j++) {
            const float e = select_float(j < visible, exp_fast(s * x[i + j] - shift), 0.0f);
            y[i + j] = e;
            sums[j] += e;
        }
    }
#pragma omp simd
    for (int j = 0; j < ND_LANES; j++)
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

static float max_of_tiles(const float *x, int64_t stride, int64_t visible)
{
    float maxima[ND_LANES];
    for (int j = 0; j < ND_LANES; j++)
        maxima[j] = -INFINITY;
    for (int64_t at = 0; at < visible; at += ND_SOFTMAX_TILE, x += stride)
        for (int64_t i = 0; i < ND_SOFTMAX_TILE && i < visible - at; i += ND_LANES) {
            const int32_t left = (int32_t)(visible - at - i);
#pragma omp simd
            for (int32_t j = 0; j < ND_LANES; j++) {
                const float next = select_float(j < left, x[i + j], -INFINITY);
                maxima[j] = select_float(next > maxima[j], next, maxima[j]);
            }
        }
    max_lanes lanes;
    memcpy(&lanes, maxima, sizeof lanes);
    return max_of_lanes(&lanes);
}

static double softmax_tiles(float *x, int64_t stride, int64_t visible, int64_t total, float s,
                            float *shift)
{
    double totals[ND_LANES] = {0};
    *shift = s * max_of_tiles(x, stride, visible);
    for (int64_t at = 0; at < total; at += ND_SOFTMAX_TILE, x += stride)
        exp_of_tile(totals, x, x, s, *shift, visible - at);
    return sum_of_lanes(totals);
}

static double softmax_tiles_bf16(uint16_t *narrow, const float *x, int64_t stride, int64_t visible,
                                 int64_t total, float s, float *shift)
{
    double totals[ND_LANES] = {0};
    *shift = s * max_of_tiles(x, stride, visible);
    for (int64_t at = 0; at < total; at += ND_SOFTMAX_TILE, x += stride, narrow += stride) {
        float row[ND_SOFTMAX_TILE];
        exp_of_tile(totals, row, x, s, *shift, visible - at);
        store_bf16(narrow, row, ND_SOFTMAX_TILE);
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
    for (int64_t row = 0; row < rows; row++, p += n, d += n, narrow_p += n, narrow_d += n)
        for (int64_t at = 0; at < n; at += ND_LANES) {
            float probability[ND_LANES], gradient[ND_LANES];
#pragma omp simd
            for (int64_t i = 0; i < ND_LANES; i++) {
                probability[i] = exp_fast(s * p[at + i] - lse[at + i]);
                gradient[i] = probability[i] * (d[at + i] - delta[at + i]) * s;
            }
            store_bf16(narrow_p + at, probability, ND_LANES);
            store_bf16(narrow_d + at, gradient, ND_LANES);
        }
}
