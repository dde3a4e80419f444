/* Texts of lines "key = value". */
#include "core/base/facts.h"
#include "support/support.h"

static void differ(const char *first, const char *second, const char *key, const char *in_first,
                   const char *in_second)
{
    nd_fact_difference d;
    cr_assert(nd_facts_differ(first, second, &d), "%s", first);
    cr_assert_str_eq(d.key, key);
    cr_assert_str_eq(d.first, in_first);
    cr_assert_str_eq(d.second, in_second);
}

Test(facts, that_are_equal_do_not_differ)
{
    nd_fact_difference d;
    cr_assert_eq(nd_facts_differ("", "", &d), false);
    cr_assert_eq(nd_facts_differ("a = 1\nb = 2\n", "a = 1\nb = 2\n", &d), false);
}

Test(facts, differ_in_a_first_key_that_is_named_with_both_values)
{
    differ("a = 1\nb = 2\nc = 3\n", "a = 1\nb = 5\nc = 4\n", "b", "2", "5");
    differ("a = 1\nb = 2 = 3\n", "a = 1\nb = 2 = 4\n", "b", "2 = 3", "2 = 4");
}

Test(facts, of_keys_that_one_text_alone_has_name_the_missing_one)
{
    differ("a = 1\nc = 3\n", "a = 1\nb = 2\nc = 3\n", "b", "absent", "2");
    differ("a = 1\nb = 2\nc = 3\n", "a = 1\nc = 3\n", "b", "2", "absent");
    differ("a = 1\n", "a = 1\nb = 2\n", "b", "absent", "2");
    differ("a = 1\nb = 2\n", "a = 1\n", "b", "2", "absent");
    differ("a = 1\n", "aa = 1\n", "a", "1", "absent");
}
