#include "optim/schedule.h"
#include "support/support.h"

Test(schedule, warm_up_moves_at_step_0_and_reaches_the_peak)
{
    const nd_schedule s = {ND_SCHEDULE_WSD, 100, 10, 0.8, 0.1};
    cr_assert_float_eq(nd_schedule_factor(&s, 0), 0.1, 1e-12);
    cr_assert_float_eq(nd_schedule_factor(&s, 4), 0.5, 1e-12);
    cr_assert_float_eq(nd_schedule_factor(&s, 9), 1.0, 1e-12);
}

Test(schedule, wsd_stays_and_then_falls_linearly_to_the_floor)
{
    const nd_schedule s = {ND_SCHEDULE_WSD, 100, 10, 0.8, 0.1};
    cr_assert_eq(nd_schedule_factor(&s, 10), 1.0);
    cr_assert_eq(nd_schedule_factor(&s, 79), 1.0);
    cr_assert_float_eq(nd_schedule_factor(&s, 89), 0.55, 1e-12);
    cr_assert_float_eq(nd_schedule_factor(&s, 99), 0.1, 1e-12);
}

Test(schedule, cosine_ends_on_the_floor_and_never_rises_after_warm_up)
{
    const nd_schedule s = {ND_SCHEDULE_COSINE, 50, 5, 0.8, 0.2};
    for (int step = 5; step < 49; step++)
        cr_assert_geq(nd_schedule_factor(&s, step), nd_schedule_factor(&s, step + 1));
    cr_assert_float_eq(nd_schedule_factor(&s, 49), 0.2, 1e-12);
}

Test(schedule, constant_stays_at_the_peak)
{
    const nd_schedule s = {ND_SCHEDULE_CONSTANT, 50, 0, 0.8, 0.2};
    cr_assert_eq(nd_schedule_factor(&s, 0), 1.0);
    cr_assert_eq(nd_schedule_factor(&s, 49), 1.0);
}
