/* The softmax kernels of the loss and of attention, included by fast_kernels_body.h. */
static double exp_sum(float *y, const float *x, float s, float shift, int64_t n)
{
    double total = 0.0;
    for (int64_t start = 0; start < n; start += 4096) {
        const int64_t end = n - start < 4096 ? n : start + 4096;
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = start; i < end; i++) {
            y[i] = exp_fast(s * x[i] - shift);
            sum += y[i];
        }
        total += (double)sum;
    }
    return total;
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

static double softmax_tiles(float *x, int64_t stride, int64_t width, int64_t visible, int64_t total,
                            float s, float *shift)
{
    float largest = -INFINITY;
    for (int64_t at = 0; at < visible; at += width) {
        const float *tile = x + at / width * stride;
        const int64_t n = visible - at < width ? visible - at : width;
        const float found = max_of(tile, n);
        largest = found > largest ? found : largest;
    }
    *shift = s * largest;
    double sum = 0.0;
    for (int64_t at = 0; at < total; at += width) {
        float *tile = x + at / width * stride;
        const int64_t left = visible - at;
        const int64_t n = left < 0 ? 0 : left < width ? left : width;
        sum += exp_sum(tile, tile, s, *shift, n);
        for (int64_t i = n; i < width; i++)
            tile[i] = 0.0f;
    }
    return sum;
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
