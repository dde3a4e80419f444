#include "dist/ownership.h"
#include "support/support.h"

Test(ownership, every_parameter_has_one_owner_and_loads_add_up)
{
    const double cost[] = {5, 1, 9, 3, 3, 7, 2, 8};
    for (int ranks = 1; ranks <= 5; ranks++) {
        nd_ownership own;
        double total = 0.0;
        ND_ASSERT_OK(nd_ownership_create(cost, 8, ranks, ranks, &own));
        for (int r = 0; r < ranks; r++)
            total += own.load[r];
        cr_assert_eq(total, 38.0);
        for (int i = 0; i < 8; i++)
            cr_assert(own.owner[i] >= 0 && own.owner[i] < ranks);
        nd_ownership_destroy(&own);
    }
}

/* Graham's bound: no rank has more than 4/3 of the best possible largest load. */
Test(ownership, the_largest_load_is_within_the_bound_of_the_rule)
{
    double cost[60];
    double total = 0.0;
    for (int i = 0; i < 60; i++) {
        cost[i] = 1 + (i * 37) % 23;
        total += cost[i];
    }
    nd_ownership own;
    ND_ASSERT_OK(nd_ownership_create(cost, 60, 7, 7, &own));
    for (int r = 0; r < 7; r++)
        cr_assert_leq(own.load[r], total / 7 * 4.0 / 3.0);
    nd_ownership_destroy(&own);
}

Test(ownership, more_ranks_than_parameters_leaves_ranks_without)
{
    const double cost[] = {2, 1};
    nd_ownership own;
    ND_ASSERT_OK(nd_ownership_create(cost, 2, 4, 4, &own));
    cr_assert_eq(own.owner[0], 0);
    cr_assert_eq(own.owner[1], 1);
    cr_assert_eq(own.load[3], 0.0);
    nd_ownership_destroy(&own);
}
