/* A held-out split that is too short for a window is none. */
#include "support/data_files.h"
#include "support/run_files.h"
#include "support/support.h"

#include <string.h>

TestSuite(held_out, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

Test(held_out, text_too_short_for_a_window_does_not_end_training)
{
    static char output[16384];
    const char *here = nd_test_here.directory;
    nd_test_train_tokenizer(here, 1);
    cr_assert_eq(
        nd_test_shell(output, sizeof output,
                      "cd %s && mkdir in && for i in $(seq 60); do echo document number "
                      "$i > in/$i; done && '%s' pack --quiet --tokenizer tok.model "
                      "--val-fraction 0.05 --out data in && '%s' --config %s --run-dir run "
                      "--dataset shards --data-path data --total-steps 2 --set "
                      "model.vocab_size=400 --set model.max_seq_len=256 --set "
                      "training.seq_length=128 --set logging.eval_interval=1",
                      here, ND_BINARY, ND_BINARY, nd_test_here.config),
        0, "%s", output);
    cr_assert(strstr(output, "nothing to evaluate on: none of the held-out shards") != NULL, "%s",
              output);
    cr_assert_eq(nd_test_shell(output, sizeof output, "cd %s && '%s' eval --checkpoint run", here,
                               ND_BINARY),
                 3, "%s", output);
    cr_assert(strstr(output, "split 'val' has") &&
                  strstr(output, "seq_length + 1 = 129, one window"),
              "%s", output);
}

Test(held_out, that_eval_does_not_find_is_named_with_where_its_name_is_from_and_the_option)
{
    static char output[16384];
    const int code = nd_test_run_script(
        output, sizeof output,
        ND_TEST_MAKE_SHARDS "$T --dataset shards --data-path shards --set model.vocab_size=300 "
                            "--total-steps 1 > log || exit 1; "
                            "cd / && $B eval --checkpoint $D/run");
    cr_assert_eq(code, 3, "exit %d: %s", code, output);
    cr_assert(strstr(output, "error: shards: cannot read this directory of shards: ") != NULL, "%s",
              output);
    cr_assert(strstr(output, "step_00000001/config.ini; --data-path names another)") != NULL, "%s",
              output);
}
