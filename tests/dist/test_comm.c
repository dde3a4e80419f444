/* The comm contract under mpirun with 1, 2, 3, 4 and 8 ranks, and alone. */
#include "support/support.h"

static void run_ranks(int ranks)
{
    char output[4096];
    const int code =
        nd_test_mpirun(output, sizeof output, ranks, "%s/ranks_comm", ND_TEST_PROGRAMS);
    cr_assert_eq(code, 0, "%d ranks: exit %d: %s", ranks, code, output);
}

Test(comm, all_functions_hold_their_contract_on_1_to_8_ranks)
{
    static const int sizes[] = {1, 2, 3, 4, 8};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        run_ranks(sizes[i]);
}

Test(comm, a_process_started_alone_needs_no_launcher)
{
    char output[4096];
    const int code = nd_test_shell(output, sizeof output, "%s/ranks_comm", ND_TEST_PROGRAMS);
    cr_assert_eq(code, 0, "exit %d: %s", code, output);
}
