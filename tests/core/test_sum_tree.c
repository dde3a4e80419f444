/* Parts of leaves, added up block by block, give the sum of the tree for every count and split. */
#include "core/base/sum_tree.h"
#include "support/support.h"

static float leaf(int64_t i)
{
    return 1.0f / (float)(3 + i * 17 % 29);
}

static float tree(int64_t a, int64_t b)
{
    if (b - a == 1)
        return leaf(a);
    const int64_t middle = a + nd_sum_tree_left(b - a);
    return tree(a, middle) + tree(middle, b);
}

/* Adds the leaves of a part as the training step does; returns how many slots are in use. */
static int add_part(int64_t first, int64_t end, float slots[64])
{
    int depth = 0;
    for (int64_t at = first; at < end; at++) {
        slots[depth] = leaf(at);
        const int merges = nd_sum_tree_merges(first, at);
        for (int upper = depth; upper > depth - merges; upper--)
            slots[upper - 1] += slots[upper];
        depth += 1 - merges;
    }
    return depth;
}

Test(sum_tree, a_part_holds_the_sums_of_its_maximal_blocks)
{
    for (int64_t first = 0; first < 40; first++)
        for (int64_t end = first + 1; end < 70; end++) {
            float slots[64];
            const int used = add_part(first, end, slots);
            int64_t at = first;
            for (int slot = 0; slot < used; slot++) {
                int64_t size = 1;
                while (at % (2 * size) == 0 && at + 2 * size <= end)
                    size *= 2;
                cr_assert(nd_sum_tree_is_block(at, at + size));
                cr_assert_eq(nd_sum_tree_slot(first, end, at), slot);
                cr_assert_eq(slots[slot], tree(at, at + size));
                at += size;
            }
            cr_assert_eq(at, end);
            cr_assert_leq(used, nd_sum_tree_slots(first, end));
        }
}

Test(sum_tree, a_part_of_a_power_of_two_needs_one_slot_more_than_its_levels)
{
    cr_assert_eq(nd_sum_tree_slots(0, 1), 1);
    cr_assert_eq(nd_sum_tree_slots(8, 16), 4);
    cr_assert_eq(nd_sum_tree_slot(0, 8, 4), -1);
}
