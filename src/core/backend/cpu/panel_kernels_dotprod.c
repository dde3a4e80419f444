/* Integers with ARM's dot products; f32 with NEON, for CPUs without SVE, where oneDNN has no
 * kernels of its own. */
#include "core/backend/cpu/panel_product.h"

#ifdef __ARM_FEATURE_DOTPROD
#include <arm_neon.h>
#include <sys/auxv.h>

typedef int32x4_t vector;
enum { LANES = 4, ROWS = 6, WIDE = 4 };
#define LOAD(p) vreinterpretq_s32_s8(vld1q_s8((const int8_t *)(p)))
#define STORE(p, x) vst1q_s8((int8_t *)(p), vreinterpretq_s8_s32(x))
#define SET(x) vdupq_n_s32(x)
#define DOT(sum, x, y) vdotq_s32(sum, vreinterpretq_s8_s32(x), vreinterpretq_s8_s32(y))
#define DOT_OF_SIGNED

#include "core/backend/cpu/panel_kernels_integers.h"

static void pack_rows_floats(void *out, const void *a, int64_t row_stride, int64_t col_stride,
                             int64_t rows, int64_t k)
{
    float *to = out;
    for (int64_t r = 0; r < ROWS; r++, to += k)
        for (int64_t i = 0; i < k; i++)
            to[i] = r < rows ? ((const float *)a)[i * row_stride + r * col_stride] : 0.0f;
}

static void pack_cols_floats(void *out, const void *b, int64_t row_stride, int64_t col_stride,
                             int64_t cols, int64_t k)
{
    float *to = out;
    for (int64_t i = 0; i < k; i++, to += COLS)
        for (int64_t j = 0; j < COLS; j++)
            to[j] = j < cols ? ((const float *)b)[i * row_stride + j * col_stride] : 0.0f;
}

static void multiply_floats(void *sums, int64_t stride, const void *a, const void *b, int64_t k,
                            const int32_t *start)
{
    const float *cols = b;
    float *c = sums;
    float32x4_t sum[ROWS][WIDE];
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int j = 0; j < WIDE; j++)
            sum[r][j] = start ? vdupq_n_f32(0.0f) : vld1q_f32(c + r * stride + j * LANES);
    for (int64_t i = 0; i < k; i++, cols += COLS) {
        float32x4_t x[WIDE];
#pragma GCC unroll 4
        for (int j = 0; j < WIDE; j++)
            x[j] = vld1q_f32(cols + j * LANES);
#pragma GCC unroll 6
        for (int r = 0; r < ROWS; r++) {
            const float32x4_t row = vdupq_n_f32(((const float *)a)[r * k + i]);
#pragma GCC unroll 4
            for (int j = 0; j < WIDE; j++)
                sum[r][j] = vfmaq_f32(sum[r][j], x[j], row);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int j = 0; j < WIDE; j++)
            vst1q_f32(c + r * stride + j * LANES, sum[r][j]);
}

#define ND_FLOAT_KIND                                                                              \
    {                                                                                              \
        .rows = ROWS, .cols = COLS, .step = 1, .bytes = 4, .block = 256,                           \
        .pack_rows = pack_rows_floats, .pack_cols = pack_cols_floats, .multiply = multiply_floats  \
    }
static const nd_panel_kind kinds[ND_PANEL_KINDS] = {ND_INTEGER_KINDS, [ND_PANEL_FLOATS] =
                                                                          ND_FLOAT_KIND};

const nd_panel_kind *nd_panel_kinds_dotprod(void)
{
    return kinds;
}

const nd_panel_kind *nd_panel_kinds_neon(void)
{
    return getauxval(AT_HWCAP) & HWCAP_SVE ? NULL : kinds;
}
#else
const nd_panel_kind *nd_panel_kinds_dotprod(void)
{
    return 0;
}

const nd_panel_kind *nd_panel_kinds_neon(void)
{
    return 0;
}
#endif
