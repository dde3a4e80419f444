/* The binary counter of levels gives the sum of the tree, for every count and split. */
#include "core/sum_tree.h"
#include "support/support.h"

static float leaf(int64_t i)
{
    return 1.0f / (float)(3 + i * 17 % 29);
}

static float tree(int64_t lo, int64_t hi)
{
    if (hi - lo == 1)
        return leaf(lo);
    const int64_t middle = lo + nd_sum_tree_left(hi - lo);
    return tree(lo, middle) + tree(middle, hi);
}

/* As the training step does it: leaf j goes to its level, lower levels are added, full levels are
 * folded at the end. */
static float counted(int64_t lo, int64_t count)
{
    float levels[40] = {0};
    for (int64_t j = 0; j < count; j++) {
        const int level = nd_sum_tree_level(j);
        levels[level] = leaf(lo + j);
        for (int lower = 0; lower < level; lower++)
            levels[level] += levels[lower];
    }
    float sum = 0.0f;
    bool started = false;
    for (int level = 0; level < nd_sum_tree_levels(count); level++) {
        if (!nd_sum_tree_full(count, level))
            continue;
        sum = started ? levels[level] + sum : levels[level];
        started = true;
    }
    return sum;
}

Test(sum_tree, the_counter_of_levels_gives_the_tree_for_every_count)
{
    for (int64_t count = 1; count <= 70; count++)
        cr_assert_eq(counted(0, count), tree(0, count), "%d leaves", (int)count);
}

static float over_ranks(int64_t part, int64_t lo, int64_t hi)
{
    if (hi - lo == 1)
        return counted(lo * part, part);
    const int64_t middle = lo + nd_sum_tree_left(hi - lo);
    return over_ranks(part, lo, middle) + over_ranks(part, middle, hi);
}

Test(sum_tree, every_split_it_allows_gives_the_same_bits)
{
    for (int64_t leaves = 1; leaves <= 64; leaves++)
        for (int64_t ranks = 1; ranks <= leaves; ranks++)
            if (nd_sum_tree_splits(leaves, ranks))
                cr_assert_eq(over_ranks(leaves / ranks, 0, ranks), tree(0, leaves),
                             "%d leaves over %d ranks", (int)leaves, (int)ranks);
    cr_assert(nd_sum_tree_splits(12, 3));
    cr_assert_eq(nd_sum_tree_splits(12, 2), false);
}
