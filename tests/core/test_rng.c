#include "core/base/rng.h"
#include "support/support.h"

#include <math.h>

/* Known answers of Philox4x32-10 from the authors' test vectors (Random123, kat_vectors). */
Test(rng, philox_gives_the_published_answers)
{
    const nd_rng_block zero = nd_rng_philox(0, 0, 0);
    cr_assert_eq(zero.word[0], 0x6627e8d5u);
    cr_assert_eq(zero.word[1], 0xe169c58du);
    cr_assert_eq(zero.word[2], 0xbc57ac4cu);
    cr_assert_eq(zero.word[3], 0x9b00dbd8u);
    const nd_rng_block ones = nd_rng_philox(UINT64_MAX, UINT64_MAX, UINT64_MAX);
    cr_assert_eq(ones.word[0], 0x408f276du);
    cr_assert_eq(ones.word[1], 0x41c83b0eu);
    cr_assert_eq(ones.word[2], 0xa20bc7c6u);
    cr_assert_eq(ones.word[3], 0x6d5451fdu);
}

Test(rng, normal_values_have_mean_0_and_the_deviation_asked_for)
{
    enum { COUNT = 50000 };
    static float x[COUNT];
    double sum = 0.0, squares = 0.0;
    nd_rng_normal_fill(nd_rng_key(1, "test"), 0, 2.0f, x, COUNT);
    for (int i = 0; i < COUNT; i++) {
        sum += (double)x[i];
        squares += (double)x[i] * (double)x[i];
    }
    cr_assert_float_eq(sum / COUNT, 0.0, 0.04);
    cr_assert_float_eq(sqrt(squares / COUNT), 2.0, 0.03);
}

Test(rng, any_part_of_a_stream_can_be_computed_alone)
{
    float all[100], part[10];
    nd_rng_normal_fill(3, 0, 1.0f, all, 100);
    nd_rng_normal_fill(3, 40, 1.0f, part, 10);
    for (int i = 0; i < 10; i++)
        cr_assert_eq(part[i], all[40 + i]);
}

Test(rng, keys_of_other_seeds_and_purposes_differ)
{
    cr_assert_neq(nd_rng_key(1, "a"), nd_rng_key(2, "a"));
    cr_assert_neq(nd_rng_key(1, "a"), nd_rng_key(1, "b"));
}
