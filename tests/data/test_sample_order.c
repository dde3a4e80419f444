#include "data/sample_order.h"
#include "support/support.h"

#include <stdlib.h>

static void assert_bijection(uint64_t seed, uint64_t epoch, int64_t n)
{
    unsigned char *seen = calloc((size_t)n, 1);
    for (int64_t i = 0; i < n; i++) {
        const int64_t value = nd_sample_order(seed, epoch, n, i);
        cr_assert(value >= 0 && value < n, "n %ld: %ld -> %ld", n, i, value);
        cr_assert(seen[value] == 0, "n %ld, seed %lu: %ld comes twice", n, seed, value);
        seen[value] = 1;
    }
    free(seen);
}

Test(sample_order, every_size_up_to_300_gives_each_window_once)
{
    for (int64_t n = 1; n <= 300; n++)
        assert_bijection(7 + (uint64_t)n, (uint64_t)n % 5, n);
}

Test(sample_order, sizes_around_powers_of_two_give_each_window_once)
{
    const int64_t sizes[] = {1023, 1024, 1025, 4095, 4096, 4097, 65535, 65536, 65537, 100003};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        assert_bijection(11, i, sizes[i]);
}

static int equal_places(uint64_t seed_a, uint64_t epoch_a, uint64_t seed_b, uint64_t epoch_b)
{
    int equal = 0;
    for (int64_t i = 0; i < 1000; i++)
        equal +=
            nd_sample_order(seed_a, epoch_a, 1000, i) == nd_sample_order(seed_b, epoch_b, 1000, i);
    return equal;
}

Test(sample_order, the_same_seed_and_epoch_give_the_same_order)
{
    cr_assert_eq(equal_places(3, 4, 3, 4), 1000);
}

Test(sample_order, another_epoch_is_another_order)
{
    cr_assert_lt(equal_places(3, 4, 3, 5), 10);
}

Test(sample_order, another_seed_is_another_order)
{
    cr_assert_lt(equal_places(3, 4, 4, 4), 10);
}

Test(sample_order, neighbors_are_scattered_evenly)
{
    /* The mean distance between two random places of 0..n-1 is n / 3. */
    const int64_t n = 10000;
    double distance = 0;
    for (int64_t i = 0; i + 1 < n; i++)
        distance += (double)llabs(nd_sample_order(5, 0, n, i) - nd_sample_order(5, 0, n, i + 1));
    distance /= (double)n;
    cr_assert(distance > 3200 && distance < 3470, "mean distance %.1f; expected about %ld",
              distance, n / 3);
}
