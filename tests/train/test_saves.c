/* Checkpoints that are written while training continues. In nanochat_dist_faulty a save can be made
 * slow: 50 ms a tensor, far longer than a step. */
#include "support/run_files.h"
#include "support/support.h"
#include "train/checkpoint/checkpoint_hdf5.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char output[16384];

TestSuite(saves, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

static void compare_files(int ranks, const char *keys)
{
    char run[128];
    snprintf(run, sizeof run, "%s/%d_ranks", nd_test_here.directory, ranks);
    const int code = nd_test_mpirun(output, sizeof output, ranks, "%s/ranks_saves %s %s %s",
                                    ND_TEST_PROGRAMS, nd_test_here.config, run, keys);
    cr_assert_eq(code, 0, "%d ranks, %s: exit %d: %s", ranks, keys, code, output);
}

Test(saves, beside_training_write_the_bytes_of_those_that_are_waited_for)
{
    compare_files(1, "training.grad_clip=0 training.micro_batch_size=8");
    compare_files(2, "training.use_8bit_optim=true training.use_galore=true "
                     "training.galore_rank=8 training.galore_update_freq=1 model.vocab_size=256");
    compare_files(4, "optimizer.master_precision=bf16 optimizer.state_bits=4 "
                     "model.hidden_dim=64");
}

/* Trains on two ranks, in RUN of the test's directory. */
static int train(const char *run, const char *fault, const char *extra)
{
    return nd_test_shell(
        output, sizeof output,
        "ND_FAULT='%s' OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
        "OMP_NUM_THREADS=1 mpirun --oversubscribe -np 2 %s/nanochat_dist_faulty --config %s "
        "--run-dir %s/%s %s",
        fault, ND_TEST_PROGRAMS, nd_test_here.config, nd_test_here.directory, run, extra);
}

static const char *path_of(const char *run)
{
    static char path[2][128];
    static int turn;
    turn = 1 - turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", nd_test_here.directory, run);
    return path[turn];
}

static void assert_same_losses(const char *run, const char *other)
{
    double losses[ND_TEST_STEPS_MAX], others[ND_TEST_STEPS_MAX];
    const int count = nd_test_metric(path_of(run), "loss", losses);
    cr_assert_eq(nd_test_metric(path_of(other), "loss", others), count);
    cr_assert_eq(memcmp(losses, others, (size_t)count * sizeof *losses), 0, "%s", run);
}

/* The rank files of checkpoint `step` of both runs. */
static void assert_same_files(const char *run, const char *other, int step)
{
    const int code =
        nd_test_shell(output, sizeof output,
                      "cd %s && for r in 0 1; do cmp %s/checkpoints/step_%08d/rank_000$r.h5 "
                      "%s/checkpoints/step_%08d/rank_000$r.h5 || exit 1; done",
                      nd_test_here.directory, run, step, other, step);
    cr_assert_eq(code, 0, "%s", output);
}

Test(saves, that_are_slower_than_a_step_hold_updates_back_and_change_nothing)
{
    double save_ms[ND_TEST_STEPS_MAX];
    cr_assert_eq(train("waiting", "", "--set logging.checkpoint_async=false"), 0, "%s", output);
    cr_assert_eq(train("slow", "slow@save_tensor:step=4:rank=1,slow@save_sync:step=8:rank=0", ""),
                 0, "%s", output);
    assert_same_losses("slow", "waiting");
    for (int step = 4; step <= 12; step += 4)
        assert_same_files("slow", "waiting", step);
    cr_assert_eq(nd_test_metric(path_of("slow"), "save_ms", save_ms), 12);
    cr_assert(save_ms[0] == 0.0 && save_ms[4] < 5000.0, "%g ms", save_ms[4]);
}

Test(saves, under_way_are_finished_before_the_run_goes_back_to_them)
{
    static const char bad[] = "nan@loss:samples=64-95";
    char fault[256], state[65];
    cr_assert_eq(train("waiting", bad, "--set logging.checkpoint_async=false --total-steps 16"), 0,
                 "%s", output);
    strcpy(state, nd_test_state(path_of("waiting")));
    snprintf(fault, sizeof fault,
             "%s,slow@save_sync:step=8:rank=0,slow@save_rename:step=8:rank=0,"
             "slow@save_digest:step=8:rank=1",
             bad);
    cr_assert_eq(train("slow", fault, "--total-steps 16"), 0, "%s", output);
    cr_assert(strstr(output, "step_00000008 at step 8, continuing with the data from sample 96") !=
                  NULL,
              "%s", output);
    assert_same_losses("slow", "waiting");
    cr_assert_str_eq(nd_test_state(path_of("slow")), state);
}

/* The first signal comes while step 4 is being saved, the second while the step that saw the first
 * is: step 6, whose update waits for the save, or on a busy machine step 5. */
Test(saves, under_way_are_finished_on_a_signal_and_a_second_one_loses_nothing)
{
    static const char script[] =
        "cd $1\n"
        "for step in 4 5 6; do faults+=slow@save_tensor:step=$step:rank=0,; done\n"
        "export ND_FAULT=$faults\n"
        "export OMP_NUM_THREADS=1\n"
        "$2 --config config.ini --run-dir $1/stopped --total-steps 12 > out 2>&1 &\n"
        "until [ -e stopped/checkpoints/.tmp_step_00000004/rank_0000.h5 ]; do sleep 0.01; done\n"
        "kill -$3 $!\n"
        "for i in $(seq 3000); do\n"
        "  ls stopped/checkpoints/.tmp_step_0000000[56]/rank_0000.h5 && break; sleep 0.01\n"
        "done > /dev/null 2>&1\n"
        "kill -TERM $!\n"
        "wait $!; echo exit $?; ls stopped/checkpoints; cat out\n";
    char path[128], state[65];
    cr_assert_eq(train("whole", "", ""), 0, "%s", output);
    strcpy(state, nd_test_state(path_of("whole")));
    snprintf(path, sizeof path, "%s/stop.sh", nd_test_here.directory);
    nd_test_write_file(path, script, sizeof script - 1);
    static const char *const signals[] = {"TERM", "USR1"};
    for (int i = 0; i < 2; i++) {
        nd_test_shell(output, sizeof output,
                      "rm -rf %s/stopped; timeout 60 bash %s %s %s/nanochat_dist_faulty %s",
                      nd_test_here.directory, path, nd_test_here.directory, ND_TEST_PROGRAMS,
                      signals[i]);
        int step = 0;
        const char *exit = strstr(output, "exit 75\n");
        cr_assert(exit != NULL &&
                      sscanf(exit, "exit 75\nlatest\nstep_00000004\nstep_%8d\n", &step) == 1 &&
                      (step == 5 || step == 6),
                  "%s", output);
        cr_assert_eq(train("stopped", "", "--resume auto"), 0, "%s", output);
        char resumed[32];
        snprintf(resumed, sizeof resumed, "at step %d\n", step);
        cr_assert(strstr(output, resumed) != NULL, "%s", output);
        assert_same_losses("stopped", "whole");
        cr_assert_str_eq(nd_test_state(path_of("stopped")), state);
    }
}

/* An end of the run without a checkpoint of its last step. */
Test(saves, under_way_are_finished_at_the_end_of_the_run)
{
    cr_assert_eq(train("run", "slow@save_sync:step=8:rank=1",
                       "--total-steps 9 --set logging.checkpoint_at_end=false"),
                 0, "%s", output);
    cr_assert_eq(
        nd_test_shell(output, sizeof output, "%s info --verify %s", ND_BINARY, path_of("run")), 0,
        "%s", output);
    cr_assert(strstr(output, "step 8,") != NULL, "%s", output);
}

/* As snapshots write over an older generation. */
Test(saves, a_tensor_that_is_written_again_has_its_new_values_and_shape)
{
    const float first[6] = {1, 2, 3, 4, 5, 6}, second[6] = {7, 8, 9, 10, 11, 12};
    const unsigned char third[2] = {13, 14};
    float whole[6];
    unsigned char codes[2];
    char path[256];
    nd_checkpoint_h5 *file = NULL;
    snprintf(path, sizeof path, "%s/again.h5", nd_test_here.directory);
    cr_assert_eq(nd_checkpoint_h5_create(path, &file), ND_OK);
    cr_assert_eq(nd_checkpoint_h5_write(file, "/a/x", nd_cview_of(first, ND_F32, 2, 3)), ND_OK);
    cr_assert_eq(nd_checkpoint_h5_write(file, "/a/y", nd_cview_of(first, ND_F32, 2, 3)), ND_OK);
    cr_assert_eq(nd_checkpoint_h5_close(file), ND_OK);
    cr_assert_eq(nd_checkpoint_h5_append(path, &file), ND_OK);
    cr_assert_eq(nd_checkpoint_h5_write(file, "/a/x", nd_cview_of(second, ND_F32, 2, 3)), ND_OK);
    cr_assert_eq(nd_checkpoint_h5_write(file, "/a/y", nd_cview_of(third, ND_U8, 2, 1)), ND_OK);
    cr_assert_eq(nd_checkpoint_h5_close(file), ND_OK);
    cr_assert_eq(nd_checkpoint_h5_open(path, &file), ND_OK);
    cr_assert_eq(nd_checkpoint_h5_read(file, "/a/x", nd_view_of(whole, ND_F32, 2, 3)), ND_OK);
    cr_assert_eq(nd_checkpoint_h5_read(file, "/a/y", nd_view_of(codes, ND_U8, 2, 1)), ND_OK);
    cr_assert_eq(nd_checkpoint_h5_close(file), ND_OK);
    cr_assert_eq(memcmp(whole, second, sizeof second), 0);
    cr_assert_eq(memcmp(codes, third, sizeof third), 0);
}
