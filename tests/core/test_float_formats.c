#include "core/backend/row_kernels.h"
#include "core/base/float_formats.h"
#include "core/base/rng.h"
#include "support/support.h"

#include <math.h>

Test(float_formats, f16_rounds_to_nearest_even_and_keeps_every_value)
{
    for (uint32_t h = 0; h < 0x7c00; h++)
        cr_assert_eq(nd_f16_from_float(nd_f16_to_float((uint16_t)h)), h);
    cr_assert_eq(nd_f16_from_float(65520.0f), 0x7c00);
    cr_assert_eq(nd_f16_from_float(1.0f + 0x1p-11f), 0x3c00);        /* a tie, down to even */
    cr_assert_eq(nd_f16_from_float(1.0f + 3.0f * 0x1p-11f), 0x3c02); /* a tie, up to even */
}

Test(float_formats, bf16_rounds_to_nearest_even_and_keeps_nan)
{
    cr_assert_eq(nd_bf16_from_float(1.0f + 0x1p-8f), 0x3f80);        /* a tie, down to even */
    cr_assert_eq(nd_bf16_from_float(1.0f + 3.0f * 0x1p-8f), 0x3f82); /* a tie, up to even */
    cr_assert(isnan(nd_bf16_to_float(nd_bf16_from_float(NAN))));
    cr_assert(isinf(nd_bf16_to_float(nd_bf16_from_float(INFINITY))));
}

/* Mean of many stochastic roundings of 1 + 2^-9, which lies a quarter of the way up. */
Test(float_formats, stochastic_rounding_is_unbiased)
{
    double sum = 0.0;
    for (uint64_t i = 0; i < 40000; i++) {
        const nd_rng_block block = nd_rng_philox(5, 0, i);
        sum +=
            (double)nd_bf16_to_float(nd_bf16_from_float_stochastic(1.0f + 0x1p-9f, block.word[0]));
    }
    cr_assert_float_eq(sum / 40000.0, 1.0 + 0x1p-9, 5e-5);
}

/* The smallest and the largest subnormal values, which a processor's instruction may take as 0. */
Test(float_formats, bf16_of_a_value_does_not_depend_on_its_place_in_a_row)
{
    enum { N = 75 };
    static const uint32_t bits[] = {1u,          0x007fffffu, 0x80654321u, 0x00800000u,
                                    0x3f808000u, 0x7f800001u, 0xffc00000u, 0xff800000u};
    const nd_row_kernels kernels = nd_row_kernels_in_force();
    for (size_t b = 0; b < sizeof bits / sizeof *bits; b++) {
        const float value = nd_float_from_bits(bits[b]);
        uint16_t expected;
        kernels.store_bf16(&expected, &value, 1);
        for (int64_t n = 1; n <= N; n++) {
            float x[N];
            uint16_t y[N + 1];
            for (int64_t i = 0; i < n; i++)
                x[i] = value;
            y[n] = 0x1234;
            kernels.store_bf16(y, x, n);
            for (int64_t i = 0; i < n; i++)
                cr_assert_eq(y[i], expected, "%#x becomes %#x at %lld of %lld, %#x alone", bits[b],
                             y[i], (long long)i, (long long)n, expected);
            cr_assert_eq(y[n], 0x1234);
        }
    }
}
