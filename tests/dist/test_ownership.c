#include "dist/ownership.h"
#include "support/support.h"

Test(ownership, every_parameter_has_one_owner_and_loads_add_up)
{
    const double cost[] = {5, 1, 9, 3, 3, 7, 2, 8};
    for (int ranks = 1; ranks <= 5; ranks++) {
        nd_ownership own;
        double total = 0.0;
        ND_ASSERT_OK(nd_ownership_create(cost, 8, ranks, &own));
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
    ND_ASSERT_OK(nd_ownership_create(cost, 60, 7, &own));
    for (int r = 0; r < 7; r++)
        cr_assert_leq(own.load[r], total / 7 * 4.0 / 3.0);
    nd_ownership_destroy(&own);
}

Test(ownership, more_ranks_than_parameters_leaves_ranks_without)
{
    const double cost[] = {2, 1};
    nd_ownership own;
    ND_ASSERT_OK(nd_ownership_create(cost, 2, 4, &own));
    cr_assert_eq(own.owner[0], 0);
    cr_assert_eq(own.owner[1], 1);
    cr_assert_eq(own.load[3], 0.0);
    nd_ownership_destroy(&own);
}

Test(ownership, rows_go_to_who_has_least_in_whole_blocks_of_consecutive_rows)
{
    enum { RANKS = 5, ROWS = 1003, BLOCK = 8 };
    const double cost[] = {0, 40, 10, 10, 5, 1};
    nd_ownership own;
    ND_ASSERT_OK(nd_ownership_create(cost, 6, RANKS, &own));
    ND_ASSERT_OK(nd_ownership_share_rows(&own, 0, ROWS, BLOCK, 60.0));
    cr_assert_eq(own.owner[0], ND_OWNED_BY_ROWS);
    int64_t row = 0;
    double total = 0.0;
    for (int r = 0; r < RANKS; r++) {
        const nd_row_span span = nd_ownership_span(&own, 0, r, ROWS);
        cr_assert_eq(span.first, row);
        row += span.count;
        cr_assert(row == ROWS || row % BLOCK == 0);
        total += own.load[r];
        if (r == own.owner[1]) /* has more than its share without rows */
            cr_assert_eq(span.count, 0);
        else /* the others have (126 - 40) / 4 each */
            cr_assert_float_eq(own.load[r], 21.5, 60.0 * BLOCK / ROWS + 1e-9);
    }
    cr_assert_eq(row, ROWS);
    cr_assert_float_eq(total, 126.0, 1e-9);
    int owners = 0;
    for (int r = -1; (r = nd_ownership_next(&own, 0, r)) >= 0; owners++)
        cr_assert(nd_ownership_span(&own, 0, r, ROWS).count > 0);
    cr_assert_eq(owners, RANKS - 1);
    nd_ownership_destroy(&own);
}

Test(ownership, one_rank_or_one_block_keeps_one_owner)
{
    const double cost[] = {0, 3};
    for (int ranks = 1; ranks <= 2; ranks++) {
        nd_ownership own;
        ND_ASSERT_OK(nd_ownership_create(cost, 2, ranks, &own));
        ND_ASSERT_OK(nd_ownership_share_rows(&own, 0, 100, ranks == 1 ? 10 : 100, 7.0));
        cr_assert_eq(nd_ownership_span(&own, 0, own.owner[0], 100).count, 100);
        cr_assert_eq(nd_ownership_next(&own, 0, own.owner[0]), -1);
        nd_ownership_destroy(&own);
    }
}
