/* The kernels that convert, included by fast_kernels_body.h after `select_float`: to and from bf16,
 * and to codes of few bits, which are transposed and packed. */

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
        if (x->rows == ND_STRIP) /* whose copy is no call */
            memcpy(q + i * stride, columns + i * ND_STRIP, ND_STRIP);
        else
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
