/* The kernels of dist/reduction/float_compression.h, which has the format; included by
 * fast_kernels_body.h. */
#ifdef __AVX2__
#include <immintrin.h>
#else
static const uint64_t ones = 0x0101010101010101u; /* a 1 in each byte */
#endif

enum { FLOATS_HEADER = 4, FLOATS_WIDTH_MAX = 4, FLOATS_WIDTH_RAW = 8 };

/* Bit k of each of 64 bytes. */
static inline uint64_t gather_bits(const uint8_t *bytes, int k)
{
    uint64_t bits = 0;
#ifdef __AVX2__
    for (int half = 0; half < 2; half++) {
        __m256i x;
        memcpy(&x, bytes + 32 * half, sizeof x);
        const __m256i up = _mm256_sll_epi16(x, _mm_cvtsi32_si128(7 - k));
        bits |= (uint64_t)(uint32_t)_mm256_movemask_epi8(up) << (32 * half);
    }
#else
    for (int b = 0; b < 8; b++) {
        uint64_t eight;
        memcpy(&eight, bytes + 8 * b, sizeof eight);
        eight = (eight >> k & ones) * 0x0102040810204080u;
        bits |= eight >> 56 << (8 * b);
    }
#endif
    return bits;
}

/* Puts the 64 bits in place as bit k of 64 bytes, where it was 0. */
static inline void spread_bits(uint8_t *bytes, uint64_t bits, int k)
{
#ifdef __AVX2__
    const __m256i place = _mm256_set1_epi64x((int64_t)0x8040201008040201u);
    const __m256i source =
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i value = _mm256_set1_epi8((char)(1 << k));
    for (int half = 0; half < 2; half++) {
        const __m256i each =
            _mm256_shuffle_epi8(_mm256_set1_epi32((int32_t)(bits >> (32 * half))), source);
        const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(each, place), place);
        __m256i x;
        memcpy(&x, bytes + 32 * half, sizeof x);
        x = _mm256_or_si256(x, _mm256_and_si256(set, value));
        memcpy(bytes + 32 * half, &x, sizeof x);
    }
#else
    for (int b = 0; b < 8; b++) {
        const uint64_t each = (bits >> (8 * b) & 0xff) * ones & 0x8040201008040201u;
        uint64_t eight;
        memcpy(&eight, bytes + 8 * b, sizeof eight);
        eight |= ((each + 0x7f * ones) >> 7 & ones) << k;
        memcpy(bytes + 8 * b, &eight, sizeof eight);
    }
#endif
}

/* How many of ND_FLOATS_BLOCK bytes are at least `limit` > 0. */
static inline int count_escapes(const uint8_t *below, uint8_t limit)
{
    enum { LANES = 64 };
    uint8_t lanes[LANES] = {0};
    for (int i = 0; i < ND_FLOATS_BLOCK; i += LANES)
        for (int j = 0; j < LANES; j++)
            lanes[j] = (uint8_t)(lanes[j] + (below[i + j] >= limit));
    int count = 0;
    for (int j = 0; j < LANES; j++)
        count += lanes[j];
    return count;
}

/* Bit j: byte j is at least `limit`. */
static inline uint64_t escapes_of(const uint8_t *below, uint8_t limit)
{
    uint8_t above[64];
    for (int j = 0; j < 64; j++)
        above[j] = (uint8_t)(0 - (below[j] >= limit));
    return gather_bits(above, 7);
}

typedef struct float_fields {
    uint16_t low[ND_FLOATS_BLOCK];
    uint8_t high[ND_FLOATS_BLOCK], exponent[ND_FLOATS_BLOCK], below[ND_FLOATS_BLOCK];
} float_fields;

/* Returns the largest exponent; beyond the values `below` is 0. */
static inline uint8_t split_floats(float_fields *f, const float *x, int n)
{
    uint32_t bits[ND_FLOATS_BLOCK], largest = 0;
    memset(bits + n, 0, (size_t)(ND_FLOATS_BLOCK - n) * sizeof *bits);
    memcpy(bits, x, (size_t)n * sizeof *bits);
#pragma omp simd reduction(max : largest)
    for (int i = 0; i < ND_FLOATS_BLOCK; i++) {
        const uint32_t e = bits[i] & 0x7f800000u;
        largest = e > largest ? e : largest;
    }
    const uint8_t top = (uint8_t)(largest >> 23);
#pragma omp simd
    for (int i = 0; i < ND_FLOATS_BLOCK; i++) {
        f->low[i] = (uint16_t)bits[i];
        f->high[i] = (uint8_t)((bits[i] >> 24 & 0x80) | (bits[i] >> 16 & 0x7f));
        f->exponent[i] = (uint8_t)(bits[i] >> 23);
        f->below[i] = (uint8_t)((largest >> 23) - (bits[i] >> 23 & 0xff));
    }
    memset(f->below + n, 0, (size_t)(ND_FLOATS_BLOCK - n));
    return top;
}

/* Writes what stands for the exponents: planes of min(below, limit), then the escapes. */
static inline void put_exponents(uint8_t *out, const float_fields *f, int plane, int width,
                                 int escapes)
{
    const uint8_t limit = (uint8_t)((1 << width) - 1);
    uint8_t capped[ND_FLOATS_BLOCK];
    for (int i = 0; i < ND_FLOATS_BLOCK; i++)
        capped[i] = f->below[i] < limit ? f->below[i] : limit;
    for (int k = 0; k < width; k++, out += plane) {
        uint64_t bits[ND_FLOATS_BLOCK / 64];
        for (int w = 0; w < ND_FLOATS_BLOCK / 64; w++)
            bits[w] = gather_bits(capped + 64 * w, k);
        memcpy(out, bits, (size_t)plane);
    }
    for (int w = 0; escapes > 0 && w < ND_FLOATS_BLOCK / 64; w++)
        for (uint64_t rest = escapes_of(f->below + 64 * w, limit); rest; rest &= rest - 1)
            *out++ = f->exponent[64 * w + __builtin_ctzll(rest)];
}

static int64_t compress_floats(uint8_t *out, int64_t room, const float *x, int n)
{
    float_fields f;
    const uint8_t top = split_floats(&f, x, n);
    const int plane = (n + 7) / 8;
    int width = FLOATS_WIDTH_RAW, least = n, escapes = 0;
    if (count_escapes(f.below, 1) == 0)
        width = least = 0;
    for (int w = 1; least > 0 && w <= FLOATS_WIDTH_MAX; w++) {
        const int count = count_escapes(f.below, (uint8_t)((1 << w) - 1));
        if (w * plane + count >= least)
            continue;
        least = w * plane + count;
        width = w;
        escapes = count;
    }
    const int64_t bytes = FLOATS_HEADER + 3 * n + least;
    if (bytes > room)
        return 0;
    const uint16_t escaped = (uint16_t)escapes;
    out[0] = top;
    out[1] = (uint8_t)width;
    memcpy(out + 2, &escaped, sizeof escaped);
    memcpy(out + FLOATS_HEADER, f.low, (size_t)(2 * n));
    memcpy(out + FLOATS_HEADER + 2 * n, f.high, (size_t)n);
    if (width == FLOATS_WIDTH_RAW)
        memcpy(out + FLOATS_HEADER + 3 * n, f.exponent, (size_t)n);
    else
        put_exponents(out + FLOATS_HEADER + 3 * n, &f, plane, width, escapes);
    return bytes;
}

/* Returns false when there are not as many escapes as announced. */
static inline bool take_exponents(float_fields *f, const uint8_t *in, int plane, int width,
                                  uint8_t top, int escapes)
{
    const uint8_t limit = (uint8_t)((1 << width) - 1);
    memset(f->below, 0, sizeof f->below);
    for (int k = 0; k < width; k++, in += plane) {
        uint64_t bits[ND_FLOATS_BLOCK / 64] = {0};
        memcpy(bits, in, (size_t)plane);
        for (int w = 0; w < ND_FLOATS_BLOCK / 64; w++)
            spread_bits(f->below + 64 * w, bits[w], k);
    }
    for (int i = 0; i < ND_FLOATS_BLOCK; i++)
        f->exponent[i] = (uint8_t)(top - f->below[i]);
    if (escapes != (width > 0 ? count_escapes(f->below, limit) : 0))
        return false;
    for (int w = 0; escapes > 0 && w < ND_FLOATS_BLOCK / 64; w++)
        for (uint64_t rest = escapes_of(f->below + 64 * w, limit); rest; rest &= rest - 1)
            f->exponent[64 * w + __builtin_ctzll(rest)] = *in++;
    return true;
}

static inline void join_floats(float *x, const float_fields *f)
{
#pragma omp simd
    for (int i = 0; i < ND_FLOATS_BLOCK; i++)
        x[i] = nd_float_from_bits((uint32_t)(f->high[i] & 0x80) << 24 |
                                  (uint32_t)f->exponent[i] << 23 |
                                  (uint32_t)(f->high[i] & 0x7f) << 16 | f->low[i]);
}

static int64_t decompress_floats(float *y, const uint8_t *in, int64_t length, int n, bool add)
{
    float_fields f;
    float joined[ND_FLOATS_BLOCK];
    uint16_t escapes;
    if (length < FLOATS_HEADER)
        return 0;
    const int width = in[1], plane = (n + 7) / 8;
    memcpy(&escapes, in + 2, sizeof escapes);
    const int64_t bytes =
        FLOATS_HEADER + 3 * n + (width == FLOATS_WIDTH_RAW ? n : width * plane) + escapes;
    if ((width > FLOATS_WIDTH_MAX && width != FLOATS_WIDTH_RAW) || length < bytes)
        return 0;
    const uint8_t *exponents = in + FLOATS_HEADER + 3 * n;
    memcpy(f.low, in + FLOATS_HEADER, (size_t)(2 * n));
    memcpy(f.high, in + FLOATS_HEADER + 2 * n, (size_t)n);
    if (width == FLOATS_WIDTH_RAW)
        memcpy(f.exponent, exponents, (size_t)n);
    else if (!take_exponents(&f, exponents, plane, width, in[0], escapes))
        return 0;
    join_floats(add || n < ND_FLOATS_BLOCK ? joined : y, &f);
    if (add)
        for (int i = 0; i < n; i++)
            y[i] += joined[i];
    else if (n < ND_FLOATS_BLOCK)
        memcpy(y, joined, (size_t)n * sizeof *y);
    return bytes;
}
