/* Masters that ternarize to given codes and scales. nd_ternary_masters checks that itself and fails
 * when they do not; the first tests show that it is needed and that the check is of something. */
#include "core/base/float_formats.h"
#include "exchange/ternary_masters.h"
#include "support/data_files.h"
#include "support/support.h"

#include <stdlib.h>
#include <string.h>

enum { ROWS = 24, COLS = 64, COUNT = ROWS * COLS };

static nd_backend *backend;

static void setup(void)
{
    const nd_cpu_backend_options options = {.threads = 1};
    ND_ASSERT_OK(nd_cpu_backend_create(&options, &backend));
}

static void teardown(void)
{
    nd_backend_destroy(backend);
}

TestSuite(ternary_masters, .init = setup, .fini = teardown);

/* Codes of which about `percent` of 100 are not 0, times the scale of each part of
 * `each` values. */
static void fill(float *values, uint64_t seed, uint32_t percent, const float *scales, int each)
{
    for (int i = 0; i < COUNT; i++) {
        const bool zero = nd_test_random(seed, (uint64_t)(2 * i), 100) >= percent;
        const float sign = nd_test_random(seed, (uint64_t)(2 * i + 1), 2) ? 1.0f : -1.0f;
        values[i] = zero ? 0.0f : sign * scales[i / each];
    }
}

static void ternarize(float *values, int groups, int8_t *codes, float *scales)
{
    ND_ASSERT_OK(
        backend->ops.ternarize(backend, nd_view_of(codes, ND_I8, ROWS, COLS),
                               nd_view_of(scales, ND_F32, groups ? ROWS : 1, groups ? groups : 1),
                               nd_cview_of(values, ND_F32, ROWS, COLS)));
}

Test(ternary_masters, dequantized_weights_themselves_would_come_back_smaller)
{
    float values[COUNT], scale = nd_f16_round(0.037f), got;
    int8_t codes[COUNT];
    fill(values, 1, 60, &scale, COUNT);
    ternarize(values, 0, codes, &got);
    cr_assert_lt(got, 0.7f * scale);
}

Test(ternary_masters, every_scale_of_fp16_and_every_density_come_back)
{
    static const uint32_t densities[] = {1, 20, 50, 67, 99, 100};
    for (uint32_t bits = 0xa8; bits < 0x7c00; bits += 97) { /* from fp16(1e-5) to the largest */
        for (size_t d = 0; d < sizeof densities / sizeof densities[0]; d++) {
            float values[COUNT], back;
            int8_t codes[COUNT], wanted[COUNT];
            const float scale = nd_f16_to_float((uint16_t)bits);
            fill(values, bits, densities[d], &scale, COUNT);
            for (int i = 0; i < COUNT; i++)
                wanted[i] = (int8_t)((values[i] > 0) - (values[i] < 0));
            ND_ASSERT_OK(nd_ternary_masters(backend, "w", values, ROWS, COLS, 0, 0.0f));
            ternarize(values, 0, codes, &back);
            cr_assert_eq(memcmp(codes, wanted, COUNT), 0);
            cr_assert(back == scale, "scale %.9g came back as %.9g", (double)scale, (double)back);
        }
    }
}

Test(ternary_masters, each_group_keeps_its_own_scale)
{
    enum { GROUPS = 4, EACH = COLS / GROUPS };
    float values[COUNT], scales[ROWS * GROUPS], back[ROWS * GROUPS];
    int8_t codes[COUNT];
    for (uint32_t i = 0; i < ROWS * GROUPS; i++)
        scales[i] = nd_f16_to_float((uint16_t)(0x1000 + nd_test_random(3, i, 0x2000)));
    fill(values, 4, 70, scales, EACH);
    ND_ASSERT_OK(nd_ternary_masters(backend, "w", values, ROWS, COLS, GROUPS, 0.0f));
    ternarize(values, GROUPS, codes, back);
    cr_assert_eq(memcmp(scales, back, sizeof scales), 0);
}

Test(ternary_masters, a_stated_scale_stands_where_bf16_rounded_it)
{
    float values[COUNT], back;
    int8_t codes[COUNT];
    const float exact = nd_f16_to_float(0x2c55); /* 11 bits, three more than bf16 keeps */
    const float rounded = nd_bf16_to_float(nd_bf16_from_float(exact));
    cr_assert(rounded != exact);
    fill(values, 5, 60, &rounded, COUNT);
    ND_ASSERT_OK(nd_ternary_masters(backend, "w", values, ROWS, COLS, 0, exact));
    ternarize(values, 0, codes, &back);
    cr_assert(back == exact);
}

Test(ternary_masters, a_matrix_of_zeros_stays_one)
{
    float values[COUNT] = {0}, back;
    int8_t codes[COUNT];
    ND_ASSERT_OK(nd_ternary_masters(backend, "w", values, ROWS, COLS, 0, 0.0f));
    ternarize(values, 0, codes, &back);
    for (int i = 0; i < COUNT; i++)
        cr_assert_eq(codes[i], 0);
}

Test(ternary_masters, what_is_not_ternary_is_refused)
{
    float values[COUNT], scale = 0.5f;
    fill(values, 6, 60, &scale, COUNT);
    values[100] = 0.25f;
    ND_ASSERT_FAILS(nd_ternary_masters(backend, "blk.0.attn_q.weight", values, ROWS, COLS, 0, 0.0f),
                    ND_EDATA, "marked as ternary, but holds 0.25");
    fill(values, 6, 60, &scale, COUNT);
    ND_ASSERT_FAILS(
        nd_ternary_masters(backend, "blk.0.attn_q.weight", values, ROWS, COLS, 0, 0.75f), ND_EDATA,
        "its scale is 0.75");
}
