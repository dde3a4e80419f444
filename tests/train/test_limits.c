/* What the machine gives a process less of than expected: stack, processors, memory. */
#include "support/run_files.h"
#include "support/support.h"

#include <stdio.h>

static char output[16384];

TestSuite(limits, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

Test(limits, a_small_stack_does_for_thousands_of_micro_batches)
{
    const int code = nd_test_shell(
        output, sizeof output,
        "{ ulimit -s 256; %s --config %s --run-dir %s/run --total-steps 1 --n-samples 16384 "
        "--set training.batch_size=16384 --set training.seq_length=4 --set model.hidden_dim=8 "
        "--set model.num_layers=1 --set model.num_heads=2 --set logging.eval_interval=0 "
        "--set logging.checkpoint_at_end=false --set training.use_mtp=true; }",
        ND_BINARY, nd_test_here.config, nd_test_here.directory);
    cr_assert_eq(code, 0, "exit %d: %s", code, output);
}
