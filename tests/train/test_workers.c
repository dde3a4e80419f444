/* Workers that train apart (train/rounds.h). */
#include "support/run_files.h"
#include "support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(workers, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

/* State, losses and held-out losses of a run of 12 steps. */
typedef struct outcome {
    char state[65];
    double losses[ND_TEST_STEPS_MAX], held_out[ND_TEST_STEPS_MAX];
} outcome;

static outcome train(int ranks, const char *name, const char *extra)
{
    outcome o = {.state = ""};
    char run[128];
    snprintf(run, sizeof run, "%s/%s", nd_test_here.directory, name);
    nd_test_train(ranks, 0, nd_test_here.config, run, extra);
    cr_assert_eq(nd_test_metric(run, "loss", o.losses), 12);
    nd_test_metric(run, "val_loss", o.held_out);
    snprintf(o.state, sizeof o.state, "%s", nd_test_state(run));
    cr_assert_eq(strlen(o.state), 64);
    return o;
}

static void expect_equal(const outcome *a, const outcome *b, const char *what)
{
    for (int s = 0; s < 12; s++)
        cr_assert_eq(a->losses[s], b->losses[s], "%s, step %d: loss %.17g and %.17g", what, s + 1,
                     a->losses[s], b->losses[s]);
    cr_assert_eq(a->held_out[11], b->held_out[11], "%s: held-out losses differ", what);
    cr_assert_str_eq(a->state, b->state, "%s: states differ", what);
}

/* Every number of ranks, the first alone. */
static void compare(const int *ranks, int count, const char *extra)
{
    char name[32], what[512];
    const outcome expected = train(ranks[0], "first", extra);
    for (int i = 1; i < count; i++) {
        if (ranks[i] > ND_TEST_RANKS_MAX)
            continue;
        snprintf(name, sizeof name, "ranks%d", ranks[i]);
        snprintf(what, sizeof what, "%d ranks, %s", ranks[i], extra);
        const outcome o = train(ranks[i], name, extra);
        expect_equal(&expected, &o, what);
    }
}

Test(workers, any_number_of_ranks_that_divides_them_trains_the_same_to_the_bit)
{
    static const int ranks[] = {0, 1, 2, 4};
    compare(ranks, 4, "--set dist.workers=4 --set dist.sync_every=5");
    compare(ranks, 4,
            "--set dist.workers=4 --set dist.sync_every=5 "
            "--set training.optimizer_type=adamw --set hardware.precision=fp32");
}

Test(workers, a_worker_of_several_ranks_trains_the_same_to_the_bit)
{
    static const int ranks[] = {0, 2, 4}, of_three[] = {0, 3};
    compare(ranks, 3, "--set dist.workers=2 --set dist.sync_every=3");
    compare(ranks, 3, "--set dist.workers=1 --set dist.sync_every=4");
    compare(of_three, 2,
            "--set dist.workers=3 --set dist.sync_every=4 "
            "--set training.batch_size=12");
}

Test(workers, rounded_changes_and_states_are_the_same_to_the_bit_too)
{
    static const int ranks[] = {0, 2, 4};
    compare(ranks, 3,
            "--set dist.workers=2 --set dist.sync_every=3 --set dist.outer_comm_dtype=int8 "
            "--set model.hidden_dim=64 --set dist.outer_state_bits=8");
    compare(ranks, 3,
            "--set dist.workers=4 --set dist.sync_every=3 --set dist.outer_comm_dtype=int4 "
            "--set model.hidden_dim=64 --set optimizer.master_precision=bf16 "
            "--set hardware.pack_ternary_weights=true");
}

Test(workers, one_worker_that_synchronizes_every_step_is_a_run_without_workers)
{
    const outcome plain = train(0, "plain", "");
    const outcome one =
        train(0, "one",
              "--set dist.workers=1 --set dist.sync_every=1 --set dist.outer_lr=0.3 "
              "--set dist.outer_momentum=0.9 --set dist.outer_comm_dtype=int4");
    expect_equal(&plain, &one, "workers = 1, sync_every = 1");
}

Test(workers, they_do_not_train_as_one_does)
{
    const outcome plain = train(0, "plain", "");
    const outcome two = train(0, "two", "--set dist.workers=2 --set dist.sync_every=3");
    cr_assert_eq(plain.losses[0], two.losses[0], "the first step has the same weights");
    cr_assert_neq(plain.losses[11], two.losses[11]);
}

/* Checkpoints every 4 steps, rounds of 5: each is written within a round. */
Test(workers, a_run_that_resumes_within_a_round_on_other_ranks_is_the_one_that_was_not_interrupted)
{
    static const char *const extra[] = {
        "--set dist.workers=4 --set dist.sync_every=5 --set dist.outer_comm_dtype=int8 "
        "--set model.hidden_dim=64",
        "--set dist.workers=2 --set dist.sync_every=5 --set dist.outer_comm_dtype=int4 "
        "--set model.hidden_dim=64 --set dist.outer_state_bits=8 "
        "--set training.use_8bit_optim=true --set dist.embedding_sync=int8_delta"};
    char output[8192], script[2048], name[32];
    for (int e = 0; e < 2; e++) {
        snprintf(name, sizeof name, "whole%d", e);
        const outcome whole = train(2, name, extra[e]);
        snprintf(script, sizeof script,
                 "for ranks in 1 4; do cp -r $D/%s $D/cut$ranks; "
                 "rm -r $D/cut$ranks/checkpoints/step_00000012 $D/cut$ranks/checkpoints/latest; "
                 "mpirun --oversubscribe -np $ranks $B --config $C --run-dir $D/cut$ranks "
                 "--resume auto %s > log 2>&1 || { cat log; exit 1; }; "
                 "grep -q 'resumed .*step_00000008' log || { cat log; exit 2; }; done",
                 name, extra[e]);
        cr_assert_eq(nd_test_run_script(output, sizeof output, script), 0, "%s", output);
        for (int ranks = 1; ranks <= 4; ranks += 3) {
            char run[128];
            snprintf(run, sizeof run, "%s/cut%d", nd_test_here.directory, ranks);
            cr_assert_str_eq(nd_test_state(run), whole.state, "%s on %d ranks", extra[e], ranks);
        }
        nd_test_run_script(output, sizeof output, "rm -r $D/cut1 $D/cut4");
    }
}

/* 4 steps without workers, then workers from there: the same on any ranks, and all begin alike. */
static void check_start(const char *keys)
{
    char output[16384], script[2048], run[128], first[65] = "";
    snprintf(
        script, sizeof script,
        "A=\"--config $C --set model.hidden_dim=64 --set training.use_8bit_optim=true %s\";"
        "rm -rf one run1 run2 run4 back; "
        "$B $A --run-dir $D/one --checkpoint-interval 4 > log 2>&1 || { cat log; exit 1; };"
        "S=$D/one/checkpoints/step_00000004;"
        "for np in 1 2 4; do mpirun --oversubscribe -np $np $B $A --run-dir $D/run$np --resume $S "
        "--set dist.workers=4 --set dist.sync_every=3 --set dist.outer_comm_dtype=int4 "
        "> log 2>&1 || { cat log; exit 2; };"
        "grep -q 'workers all 4 begin with the masters' log || exit 3;"
        "test $(wc -l < run$np/metrics.jsonl) = 8 || exit 4; done;"
        "sed -n '/\"step\": *5,/s/.*\"loss\": *\\([0-9.]\\{6\\}\\).*/\\1/p' one/metrics.jsonl "
        "run1/metrics.jsonl "
        "| uniq | wc -l | grep -q '^1$' || exit 5;"
        "$B $A --run-dir $D/back --resume $D/run1/checkpoints/step_00000012 > log 2>&1; "
        "test $? = 4 && grep 'run with 4 workers, .* has no workers' log",
        keys);
    const int code = nd_test_run_script(output, sizeof output, script);
    cr_assert_eq(code, 0, "%s: exit %d: %s", keys, code, output);
    for (int np = 1; np <= 4; np *= 2) {
        snprintf(run, sizeof run, "%s/run%d", nd_test_here.directory, np);
        if (np == 1)
            snprintf(first, sizeof first, "%s", nd_test_state(run));
        cr_assert_str_eq(nd_test_state(run), first, "%s, %d ranks", keys, np);
    }
}

Test(workers, they_begin_where_a_run_without_workers_stands_the_same_on_any_number_of_ranks)
{
    check_start("");
}

/* The start of a round is f32 whatever the masters are. */
Test(workers, they_begin_where_a_run_with_masters_in_bf16_stands)
{
    check_start("--set optimizer.master_precision=bf16");
}

/* Each worker has masters and state of its own, as many as the checkpoint was written with. */
Test(workers, a_checkpoint_of_another_number_of_workers_is_refused_and_both_numbers_are_named)
{
    char output[16384];
    const int code = nd_test_run_script(
        output, sizeof output,
        "A=\"$B --config $C --set dist.sync_every=3\"; K='--set dist.workers'; exec 2>&1;"
        "$A $K=4 --run-dir $D/four --total-steps 4 || exit 1;"
        "$A $K=1 --run-dir $D/one --total-steps 4 || exit 2;"
        "refused() { c=$?; cat log; test $c = 4 && grep -q \"step_00000004: $1\" log; };"
        "S=checkpoints/step_00000004;"
        "for k in 2 8; do for from in \"--run-dir $D/new --resume $D/four/$S\" "
        "\"--run-dir $D/four --resume auto\"; do $A $K=$k $from > log 2>&1;"
        " refused \".*run with 4 workers, .* has $k workers.*dist. workers = 4, or\" || exit 3; "
        "done; done;"
        "$A $K=1 --run-dir $D/four --resume auto > log 2>&1;"
        "refused '.*run with 4 workers, .* has 1 worker with sync_every > 1' || exit 4;"
        "$A $K=1 --set dist.sync_every=1 --run-dir $D/one --resume auto > log 2>&1;"
        "refused '.*1 worker with sync_every > 1, .* has no workers.*sync_every > 1, or' || exit 5;"
        "$A $K=2 --run-dir $D/one --resume auto > log 2>&1;"
        "refused '.*run with 1 worker with sync_every > 1, .* has 2 workers'");
    cr_assert_eq(code, 0, "exit %d: %s", code, output);
}

/* What rounding left belongs to a format; steps and outer step may change between rounds. */
Test(workers, a_change_of_the_format_or_of_the_steps_of_a_round_is_said_and_residuals_begin_at_zero)
{
    char output[32768];
    const int code = nd_test_run_script(
        output, sizeof output,
        "A=\"--config $C --set dist.workers=2 --set model.hidden_dim=64\"; exec 2>&1;"
        "W='--set dist.outer_comm_dtype'; H='--set dist.sync_every';"
        "go_on() { mpirun --oversubscribe -np $1 $B $A $W=$3 $H=3 --run-dir $D/$4 --total-steps 8 "
        "--resume $D/$2/checkpoints/step_00000005 > log 2>&1; c=$?; cat log; test $c = 0 && "
        "grep -q 'changed dist.sync_every was 2, is 3' log; };"
        "said() { grep -q \"changed dist.outer_comm_dtype was $1, is $2\" log && "
        "test $(grep -c \"error feedback $3\" log) = 1; };"
        "for was in fp32 int8; do"
        " $B $A $W=$was $H=2 --run-dir $D/$was --total-steps 5 || exit 1; done;"
        "for np in 1 2; do go_on $np fp32 int4 run$np || exit 2;"
        " said fp32 int4 'begins at zero' || exit 3; done;"
        "grep -h state_sha256 run1/checkpoints/latest/manifest.json "
        "run2/checkpoints/latest/manifest.json | uniq | wc -l | grep -qx 1 || exit 4;"
        "go_on 1 int8 int4 other || exit 5; said int8 int4 'begins at zero' || exit 6;"
        "go_on 1 int8 fp32 without || exit 7; said int8 fp32 'is dropped' || exit 8;"
        "go_on 1 int8 int8 same || exit 9; ! grep 'outer_comm_dtype was\\|error feedback' log");
    cr_assert_eq(code, 0, "exit %d: %s", code, output);
}

/* Held-out loss and the master in a checkpoint are of the model of the last synchronization. */
Test(workers, what_is_evaluated_and_exported_is_the_model_of_the_last_synchronization)
{
    char output[8192], run[128];
    double held_out[ND_TEST_STEPS_MAX];
    snprintf(run, sizeof run, "%s/run", nd_test_here.directory);
    nd_test_train(2, 0, nd_test_here.config, run,
                  "--set dist.workers=2 --set dist.sync_every=4 --set logging.eval_interval=1");
    nd_test_metric(run, "val_loss", held_out);
    for (int s = 4; s < 12; s++)
        if ((s + 1) % 4 == 0)
            cr_assert_neq(held_out[s], held_out[s - 1], "step %d ends a round", s + 1);
        else
            cr_assert_eq(held_out[s], held_out[s - 1], "step %d is within a round", s + 1);
    cr_assert_eq(nd_test_run_script(output, sizeof output,
                                    "$B export --checkpoint $D/run --type f32 --out $D/m.gguf"),
                 0, "%s", output);
}

static void check_plan(int ranks, const char *extra)
{
    char output[8192], script[2048];
    snprintf(
        script, sizeof script,
        "mpirun --oversubscribe -np %d $T %s --resume none > log 2>&1 || { cat log; exit 1; }; "
        "$B plan --config $C --ranks %d %s > plan || exit 2; tail -n 1 run/metrics.jsonl > last; "
        "for c in codes masters gradients optimizer activations wire; do "
        "planned=$(awk -v c=$c '$1 == c { print $2; exit }' plan); "
        "measured=$(sed \"s/.*\\\"$c\\\":\\([0-9]*\\).*/\\1/\" last | "
        "awk '{ printf \"%%.1f\", $1 / 1048576 }'); "
        "[ $planned = $measured ] || { echo $c: $planned planned, $measured; exit 3; }; done; "
        "awk '$1 == \"outer\" { exit !($3 > 0) }' plan || { cat plan; exit 4; }",
        ranks, extra, ranks, extra);
    cr_assert_eq(nd_test_run_script(output, sizeof output, script), 0, "%d ranks, %s: %s", ranks,
                 extra, output);
}

Test(workers, what_they_take_is_what_the_plan_says)
{
    check_plan(2, "--set dist.workers=4 --set dist.sync_every=5 --set model.hidden_dim=128 "
                  "--set dist.outer_comm_dtype=int8 --set dist.outer_state_bits=8");
    check_plan(4, "--set dist.workers=2 --set dist.sync_every=5 --set model.hidden_dim=128");
}

/* All bytes that ranks send in a round, by the metrics and by the plan. */
Test(workers, a_round_sends_the_bytes_that_the_plan_says)
{
    double sent[ND_TEST_STEPS_MAX];
    char output[8192], run[128];
    snprintf(run, sizeof run, "%s/run", nd_test_here.directory);
    nd_test_train(4, 0, nd_test_here.config, run,
                  "--set dist.workers=4 --set dist.sync_every=4 --set model.hidden_dim=256 "
                  "--set dist.outer_comm_dtype=int4 --total-steps 4");
    cr_assert_eq(nd_test_metric(run, "comm_bytes", sent), 4);
    const int code = nd_test_run_script(
        output, sizeof output,
        "$B plan --config $C --ranks 4 --set dist.workers=4 --set dist.sync_every=4 --set "
        "model.hidden_dim=256 --set dist.outer_comm_dtype=int4 | awk '$1 == \"outer\" { print $3 "
        "}'");
    cr_assert_eq(code, 0, "%s", output);
    const double planned = 4e6 * atof(output);
    cr_assert_float_eq(sent[3] - sent[2], planned, 4e3, "%g sent in a round, %g planned",
                       sent[3] - sent[2], planned);
}

/* The last step ends a round too, so that a run has more of them than one in H steps; and a round
 * ends with whole weights, twice where workers' masters in bf16 differ from the start. A run that
 * is shorter than galore_update_freq has a new subspace in most of its steps. */
Test(workers, a_run_sends_the_bytes_a_step_that_the_plan_says)
{
    static const char *const keys[] = {
        "--set dist.workers=4 --set dist.sync_every=100",
        "--set dist.workers=4 --set dist.sync_every=8",
        "--set dist.workers=2 --set dist.sync_every=2 --set optimizer.master_precision=bf16 "
        "--set dist.weight_sync=full_base3",
        "--set training.use_galore=true --set training.galore_rank=16 "
        "--set training.galore_update_freq=100"};
    double sent[ND_TEST_STEPS_MAX];
    char output[8192], run[128], extra[256], script[512];
    snprintf(run, sizeof run, "%s/run", nd_test_here.directory);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        snprintf(extra, sizeof extra, "--set model.hidden_dim=256 %s", keys[i]);
        nd_test_train(4, 0, nd_test_here.config, run, extra);
        cr_assert_eq(nd_test_metric(run, "comm_bytes", sent), 12);
        cr_assert(i == 3 || sent[0] == sent[2], "%s: %g in the first step, %g in the third", extra,
                  sent[0], sent[2]); /* neither initial weights nor what a save exchanges */
        double all = 0.0;
        for (int step = 0; step < 12; step++)
            all += sent[step];
        snprintf(script, sizeof script,
                 "rm -r run; $B plan --config $C --ranks 4 %s | awk '$1 == \"sum\" { at = $2 } "
                 "END { print at }'",
                 extra);
        const int code = nd_test_run_script(output, sizeof output, script);
        cr_assert_eq(code, 0, "%s", output);
        const double planned = 12e6 * atof(output);
        cr_assert_float_eq(all, planned, 0.01 * planned, "%s: %g sent, %g planned", extra, all,
                           planned);
    }
}

/* The systems of the E3 suite one by one and together, at a size of seconds. */
Test(workers, every_system_of_the_e3_suite_trains_in_workers_the_same_on_any_number_of_ranks)
{
    static const char *const systems[] = {
        "--set training.use_mtp=true --set training.mtp_n_tokens=3",
        "--set training.use_mtp=true --set training.mtp_form=sequential "
        "--set training.mtp_n_tokens=2",
        "--set training.use_8bit_optim=true",
        "--set training.use_galore=true --set training.galore_rank=16 "
        "--set training.galore_update_freq=4",
        "--set training.use_mtp=true --set training.mtp_n_tokens=3 --set "
        "training.use_collider=true "
        "--set training.collider_threshold=0.9 --set training.use_async_loader=true "
        "--set training.use_8bit_optim=true --set training.use_galore=true "
        "--set training.galore_rank=16 --set training.galore_update_freq=4 "
        "--set training.entropy_weight=0.01 --set hardware.gradient_checkpointing=true"};
    static const int ranks[] = {0, 2, 4};
    char extra[1024];
    for (size_t i = 0; i < sizeof systems / sizeof *systems; i++) {
        snprintf(extra, sizeof extra,
                 "--set dist.workers=2 --set dist.sync_every=5 --set model.hidden_dim=64 "
                 "--set dist.weight_sync=delta --set dist.embedding_sync=int8_delta %s",
                 systems[i]);
        compare(ranks, 3, extra);
    }
}

/* A loss that is not finite makes all workers skip the step; after too many they go
 * back together. */
Test(workers, they_skip_a_step_together_and_go_back_together)
{
    char output[16384];
    const int code = nd_test_run_script(
        output, sizeof output,
        "for np in 1 4; do ND_FAULT=nan@gradient:samples=38-38,nan@loss:samples=72-87 mpirun "
        "--oversubscribe -np $np $F --config $C "
        "--run-dir $D/run$np --set dist.workers=4 --set dist.sync_every=5 --set "
        "training.max_skipped_steps=1 > log$np 2>&1 || "
        "{ cat log$np; exit 1; }; done; cat log1 log4");
    cr_assert_eq(code, 0, "%s", output);
    char one[128], four[65], path[128];
    snprintf(one, sizeof one, "%s/run1", nd_test_here.directory);
    snprintf(path, sizeof path, "%s/run4", nd_test_here.directory);
    snprintf(four, sizeof four, "%s", nd_test_state(path));
    cr_assert_str_eq(nd_test_state(one), four, "%s", output);
    cr_assert(strstr(output, "skipped step 5") != NULL, "%s", output);
    cr_assert(strstr(output, "rolled back to ") != NULL, "%s", output);
}

Test(workers, a_run_that_goes_on_from_a_snapshot_in_memory_is_the_one_that_was_not_interrupted)
{
    char output[16384];
    const int code = nd_test_run_script(
        output, sizeof output,
        "A=\"$F --config $C --set dist.workers=4 --set dist.sync_every=5 --set model.hidden_dim=64 "
        "--set dist.outer_comm_dtype=int8 --set logging.checkpoint_interval=0 "
        "--set logging.snapshot_interval=2 --set logging.snapshot_dir=$D/memory\"; "
        "state() { grep -o '\"state_sha256\": \"[0-9a-f]\\{64\\}\"' "
        "$D/$1/checkpoints/latest/manifest.json; }; "
        "mpirun --oversubscribe -np 2 $A --run-dir $D/whole > log 2>&1 || { cat log; exit 1; }; "
        "for at in weights:step=8 outer:step=10; do rm -rf $D/cut; "
        "ND_FAULT=kill@$at:rank=1 mpirun --oversubscribe -np 2 $A --run-dir $D/cut > log 2>&1 && "
        "exit 2; mpirun --oversubscribe -np 2 $A --run-dir $D/cut --resume auto > log 2>&1 || { "
        "cat log; exit 3; }; grep 'resumed .*a snapshot in memory' log || exit 4; "
        "state whole > a && state cut | cmp - a || exit 5; done");
    cr_assert_eq(code, 0, "exit %d: %s", code, output);
}
