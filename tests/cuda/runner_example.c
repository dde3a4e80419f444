/* Tests that pass, fail and crash, for what device/runner.c makes of them. */
#include <criterion/criterion.h>

#include <signal.h>

Test(example, first_passes)
{
    cr_assert(true);
}

Test(example, second_fails)
{
    cr_assert_eq(1, 2, "a message");
}

Test(example, third_crashes)
{
    raise(SIGSEGV);
}

Test(example, fourth_passes)
{
    cr_assert(true);
}
