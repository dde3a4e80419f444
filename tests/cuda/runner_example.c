/* Tests that pass, fail and crash, for what device/runner.c makes of them; the GPU is said to be
 * there. */
#include "cuda_backend.h"

#include <criterion/criterion.h>

#include <signal.h>

int nd_cuda_device_count(char *reason, size_t size)
{
    (void)reason, (void)size;
    return 1;
}

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
