/* Training on several (emulated) devices with weight_sync = delta. */
#include "support/run_files.h"
#include "support/support.h"

#include <stdio.h>
#include <string.h>

TestSuite(code_streams, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

static char output[8192];

static int train(int ranks, const char *how, const char *extra)
{
    return nd_test_mpirun(output, sizeof output, ranks,
                          "%s/ranks_code_kernels %s %s %s dist.weight_sync=delta "
                          "data.n_samples=24 training.batch_size=%d %s",
                          ND_TEST_PROGRAMS, how, nd_test_here.config, nd_test_here.directory,
                          2 * ranks, extra);
}

/* Two for losses and norms, and one for the lengths of all streams. */
static void check(int ranks, const char *extra)
{
    const int code = train(ranks, "sound", extra);
    cr_assert_eq(code, 0, "%d ranks, %s: exit %d:\n%s", ranks, extra, code, output);
    for (int r = 0; r < ranks; r++) {
        char line[64];
        int changed = 0, by_host = 0, by_kernels = 0;
        snprintf(line, sizeof line, "rank %d: ", r);
        const char *said = strstr(output, line);
        cr_assert(said != NULL, "%s", output);
        cr_assert_eq(sscanf(said + strlen(line),
                            "%d entries of changes; waits: %d by the host, %d by kernels", &changed,
                            &by_host, &by_kernels),
                     3);
        cr_assert_gt(changed, 0, "%s", output);
        cr_assert_gt(by_host, 3 * changed, "%s", output);
        cr_assert_eq(by_kernels, 2 + 1, "%s", output);
    }
}

Test(code_streams, made_by_kernels_are_the_hosts_and_wait_once_a_step)
{
    check(2, "");
    check(3, "training.optimizer_type=adamw");
}

Test(code_streams, so_are_those_of_packed_weights_with_scales_of_groups)
{
    check(2,
          "hardware.pack_ternary_weights=true model.group_size=16 dist.embedding_sync=int8_delta");
}

Test(code_streams, that_arrive_damaged_end_the_run_and_name_the_tensor)
{
    const int code = train(2, "damaged", "");
    cr_assert_eq(code, 5, "exit %d:\n%s", code, output);
    cr_assert(strstr(output, "rank 1, kernels: ") != NULL, "%s", output);
    cr_assert(strstr(output, ".weight are cut short") != NULL, "%s", output);
}
