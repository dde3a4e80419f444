/* Ternary codes sent as what changed of them. */
#include "core/base/rng.h"
#include "dist/weights/changed_codes.h"
#include "support/support.h"

#include <stdlib.h>
#include <string.h>

enum { COUNT = 20011, CAPACITY = 3 * COUNT };

static int8_t before[COUNT], now[COUNT], got[COUNT];
static uint8_t stream[CAPACITY];

/* Each code changes with this probability, to either of the others. */
static void fill(double probability, uint64_t seed)
{
    const uint64_t key = nd_rng_key(seed, "codes");
    for (int i = 0; i < COUNT; i++) {
        before[i] = (int8_t)(nd_rng_uniform(key, (uint64_t)i) * 3.0) - 1;
        const double draw = nd_rng_uniform(key, (uint64_t)(COUNT + i));
        const int turn = draw >= probability ? 0 : draw < probability / 2.0 ? 1 : 2;
        now[i] = (int8_t)((before[i] + 1 + turn) % 3 - 1);
    }
}

static size_t cross(int64_t count)
{
    const size_t bytes = nd_changed_codes_encode(before, now, count, stream, CAPACITY);
    memcpy(got, before, sizeof got);
    ND_ASSERT_OK(nd_changed_codes_apply(got, count, stream, bytes));
    cr_assert_eq(memcmp(got, now, (size_t)count), 0);
    return bytes;
}

Test(changed_codes, arrive_as_they_are_at_any_rate_of_change)
{
    static const double rates[] = {0.0, 1e-4, 0.01, 0.1, 0.7, 1.0};
    for (size_t r = 0; r < sizeof rates / sizeof *rates; r++)
        for (int64_t cut = 0; cut < 20; cut++) {
            fill(rates[r], 7 * (uint64_t)cut + r);
            cross(COUNT - cut);
        }
}

/* For independent changes at rate p a byte each, and one more for each 127 in a row that stay. */
Test(changed_codes, take_a_byte_a_change_and_little_more)
{
    fill(0.02, 1);
    int changes = 0;
    for (int i = 0; i < COUNT; i++)
        changes += before[i] != now[i];
    const size_t bytes = cross(COUNT);
    cr_assert(bytes >= (size_t)changes && bytes < (size_t)(1.15 * changes), "%zu bytes for %d",
              bytes, changes);
    fill(0.0, 1);
    cr_assert_eq(cross(COUNT), 0);
}

Test(changed_codes, that_need_more_room_than_there_is_are_told)
{
    fill(0.5, 2);
    const size_t bytes = cross(COUNT);
    cr_assert_eq(nd_changed_codes_encode(before, now, COUNT, stream, bytes), bytes);
    cr_assert_eq(nd_changed_codes_encode(before, now, COUNT, stream, bytes - 1), bytes);
    cr_assert_eq(nd_changed_codes_encode(before, now, COUNT, stream, 0), 1);
}

Test(changed_codes, beyond_the_last_are_refused)
{
    fill(0.0, 3);
    now[COUNT - 1] = before[COUNT - 1] == 1 ? -1 : (int8_t)(before[COUNT - 1] + 1);
    const size_t bytes = cross(COUNT);
    ND_ASSERT_FAILS(nd_changed_codes_apply(got, COUNT - 1, stream, bytes), ND_EPEER,
                    "a change of code 20010 of 20010");
}
