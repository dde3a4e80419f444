/* Snapshots in memory, and the script that starts a run again. Ranks of one machine stand for two
 * hosts by names of their own (unshare --uts), where that is allowed. */
#include "support/run_files.h"
#include "support/support.h"

#include <stdio.h>
#include <string.h>

static char output[65536];

TestSuite(snapshots, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

/* What all scripts start with. `train RANKS FAULT ARGUMENTS...` runs under mpirun, `hosts RANKS
 * FAULT ARGUMENTS...` with two ranks on a host; $M is where snapshots go, `state RUN` prints its
 * state. Before a FAULT steps after a snapshot are slow, so that it is whole when a rank is killed.
 * A rank that is killed at snapshot_written of step 9 leaves that of step 6 whole with its copies,
 * however busy the machine is: the next one begins only then, and is not published. */
#define SETUP                                                                                      \
    "M=$D/memory; SET=\"--set logging.snapshot_interval=3 --set logging.snapshot_dir=$M --set "    \
    "logging.checkpoint_interval=0 --set dist.timeout_seconds=20\";"                               \
    "S=; for s in 4 5 7 8 10 11; do for p in backward weights report; do "                         \
    "S=${S}slow@$p:step=$s:rank=0,; done; done;"                                                   \
    "train() { n=$1 f=$2; shift 2; ND_FAULT=${f:+$S$f} mpirun --oversubscribe -np $n $F --config " \
    "$C "                                                                                          \
    "$SET "                                                                                        \
    "\"$@\" > log 2>&1; };"                                                                        \
    "hosts() { n=$1 f=$2; shift 2; ND_FAULT=${f:+$S$f} mpirun --oversubscribe -np $n unshare "     \
    "--uts sh "                                                                                    \
    "-c "                                                                                          \
    "'hostname host$((OMPI_COMM_WORLD_RANK / 2)); exec \"$0\" \"$@\"' $F --config $C $SET \"$@\" " \
    "> log 2>&1; };"                                                                               \
    "state() { sed -n 's/.*\"state_sha256\": \"\\(.*\\)\".*/\\1/p' "                               \
    "$1/checkpoints/latest/manifest.json; };"                                                      \
    "same() { test -n \"$(state whole)\" && test \"$(state whole)\" = \"$(state $1)\" && "         \
    "test ! -e $M; };"                                                                             \
    "train 1 '' --run-dir whole --set logging.snapshot_interval=0 || exit 90;"

/* On a busy machine a kill can come before the snapshot that it should leave is whole, which is
 * nobody's fault: the script is then tried again, from an empty directory, twice at most. */
static void run(const char *script)
{
    static char whole[8192];
    int code = 1;
    snprintf(whole, sizeof whole, "rm -rf whole run run2 other memory memory2;%s%s", SETUP, script);
    for (int attempt = 0; attempt < 3 && code != 0 && code != 77; attempt++)
        code = nd_test_run_script(output, sizeof output, whole);
    if (code == 77)
        cr_skip_test("host names of one's own are not allowed here");
    if (code != 0)
        nd_test_run_script(output, sizeof output, "tail -n 40 log; ls -R memory");
    cr_assert_eq(code, 0, "exit %d: %s", code, output);
}

Test(snapshots, that_are_resumed_equal_the_uninterrupted_run_to_the_bit)
{
    run("for n in 1 2 4; do"
        " train $n kill@snapshot_written:step=9:rank=$((n - 1)) --run-dir run && exit 1;"
        " train $n '' --run-dir run --resume auto || exit 2;"
        " grep -q 'resumed .*a snapshot in memory, at step 6' log || exit 3;"
        " same run || exit 4; test $(wc -l < run/metrics.jsonl) = 12 || exit 5;"
        " test ! -e run/snapshot_hosts || exit 6; ! grep 'the run has lost' log || exit 7;"
        " rm -r run; done");
}

Test(snapshots, that_leave_nothing_to_train_are_saved_to_the_disk)
{
    run("train 2 kill@snapshot_written:step=9:rank=0 --run-dir run;"
        "train 2 '' --run-dir run --resume auto --total-steps 5 --set "
        "logging.checkpoint_at_end=false || exit 1;"
        "grep -q 'in memory, at step 6' log && test ! -e $M || exit 2;"
        "train 2 '' --run-dir run --resume auto || exit 3;"
        "grep -q 'resumed .*checkpoints/step_00000006 at step 6' log || exit 4; same run");
}

Test(snapshots, may_be_resumed_by_another_number_of_ranks)
{
    run("train 4 kill@snapshot_written:step=9:rank=2 --run-dir run;"
        "train 2 kill@backward:step=11:rank=1 --run-dir run --resume auto;"
        "grep -q 'in memory, at step 6' log || exit 1;"
        "train 8 '' --run-dir run --resume auto || exit 2;"
        "grep -q 'in memory, at step 9' log || exit 3; same run");
}

Test(snapshots, of_gradients_that_are_rounded_on_the_wire_equal_the_undisturbed_run_with_snapshots)
{
    run("SET=\"$SET --set dist.grad_comm_dtype=int8 --set dist.embedding_sync=int8_delta --set "
        "dist.deterministic=off\";"
        "rm -r whole; train 2 '' --run-dir whole || exit 1;"
        "train 2 kill@snapshot_written:step=9:rank=1 --run-dir run;"
        "train 2 '' --run-dir run --resume auto || exit 2;"
        "grep -q 'in memory, at step 6' log || exit 3; same run");
}

Test(snapshots, of_workers_that_synchronise_now_and_then_equal_the_undisturbed_run)
{
    run("unshare --uts true || exit 77;"
        "SET=\"$SET --set dist.workers=4 --set dist.sync_every=4\";"
        "rm -r whole; train 2 '' --run-dir whole --set logging.snapshot_interval=0 || exit 1;"
        "hosts 4 kill@snapshot_written:step=9:rank=3 --run-dir run; rm -r $M/*/host1;"
        "hosts 4 '' --run-dir run --resume auto || exit 2;"
        "grep -q 'in memory, at step 6' log || exit 3; same run");
}

/* Their pieces and the workers' gradients go through different communicators. */
Test(snapshots, of_workers_of_several_ranks_are_copied_without_a_second_thread_in_mpi)
{
    run("SET=\"$SET --set dist.sync_every=4 --set logging.snapshot_buddy=always\";"
        "for w in 1 2; do rm -r whole;"
        " train 4 '' --run-dir whole --set dist.workers=$w --set logging.snapshot_interval=0 || "
        "exit 1;"
        " train 4 '' --run-dir run --set dist.workers=$w || exit 2; same run || exit 3;"
        " rm -r run; done");
}

/* Ranks 0 and 2 have the same masters, as have 1 and 3. */
Test(snapshots, of_groups_are_resumed_in_the_same_and_in_other_groups)
{
    run("for g in 2 1; do"
        " train 4 kill@snapshot_written:step=9:rank=2 --run-dir run --set dist.group_ranks=2 && "
        "exit 1;"
        " train 4 '' --run-dir run --resume auto --set dist.group_ranks=$g || exit 2;"
        " grep -q 'resumed .*a snapshot in memory, at step 6' log || exit 3;"
        " same run || exit 4; test $(wc -l < run/metrics.jsonl) = 12 || exit 5; rm -r run; done;"
        "train 4 kill@snapshot_written:step=9:rank=0 --run-dir run --set dist.group_ranks=1;"
        "train 2 '' --run-dir run --resume auto || exit 6;"
        "grep -q 'in memory, at step 6' log || exit 7; same run");
}

Test(snapshots, of_groups_on_a_lost_host_come_from_the_copies_on_another)
{
    run("unshare --uts true || exit 77;"
        "hosts 4 kill@snapshot_written:step=9:rank=3 --run-dir run --set dist.group_ranks=2;"
        "test -e $M/*/host0/step_00000006/copy_0003.h5 || exit 1; rm -r $M/*/host1;"
        "hosts 2 '' --run-dir run --resume auto --set dist.group_ranks=1 || exit 2;"
        "grep -q 'in memory, at step 6' log || exit 3; same run");
}

Test(snapshots, of_a_lost_host_come_from_the_copies_on_another)
{
    run("unshare --uts true || exit 77;"
        "hosts 4 kill@snapshot_written:step=9:rank=3 --run-dir run;"
        "test -e $M/*/host0/step_00000006/copy_0003.h5 || exit 1; rm -r $M/*/host1;"
        "hosts 2 kill@backward:step=11:rank=0 --run-dir run --resume auto;"
        "grep -q 'in memory, at step 6' log || exit 2; test $(wc -l < run/metrics.jsonl) = 10 || "
        "exit 3;"
        "hosts 4 '' --run-dir run --resume auto || exit 4;"
        "grep -q 'in memory, at step 9' log || exit 5;"
        "grep -q 'rank_0001.h5 of step 9 comes from host host0 to host host1' log || exit 6;"
        "same run");
}

Test(snapshots, keep_copies_on_the_same_host_when_asked_to_and_say_so)
{
    run("SET=\"$SET --set logging.snapshot_buddy=always\";"
        "train 2 kill@snapshot_written:step=9:rank=0 --run-dir run;"
        "test $(grep -c 'have their copy on their own host' log) = 1 || exit 1;"
        "printf x | dd of=$(echo $M/*/*/step_00000006/rank_0001.h5) bs=1 seek=3000 conv=notrunc 2> "
        "dd;"
        "train 2 '' --run-dir run --resume auto || exit 2;"
        "grep -q 'in memory, at step 6' log || exit 3; same run");
}

/* Before the copies of step 8 its file of copies can only be that of step 4. */
Test(snapshots, are_written_over_the_generation_before_the_last)
{
    run("SET=\"$SET --set logging.snapshot_interval=2 --set logging.snapshot_buddy=always\";"
        "for at in written reuse; do"
        " train 2 kill@snapshot_$at:step=8:rank=0 --run-dir run && exit 1;"
        " test -e $M/*/*/step_0000000[48]/copy_0001.h5 || exit 2;"
        " test $(find $M -name manifest.json) = $(echo $M/*/*/step_00000006/manifest.json) || exit "
        "3;"
        " train 2 '' --run-dir run --resume auto || exit 4;"
        " grep -q 'resumed .*a snapshot in memory, at step 6' log || exit 5;"
        " same run || exit 6; rm -r run; done");
}

Test(snapshots, of_which_a_part_is_damaged_give_way_to_the_older_one_and_then_to_the_disk)
{
    run("damage() { printf x | dd of=$(echo $M/*/*/step_0000000$1/rank_0001.h5) bs=1 seek=3000 "
        "conv=notrunc "
        "2> dd; };"
        "train 2 kill@backward:step=8:rank=0 --run-dir run --checkpoint-interval 2 --set "
        "logging.checkpoint_async=false; damage 6;"
        "cp -r run run2; cp -r $M memory2;"
        "train 2 '' --run-dir run --resume auto || exit 1;"
        "grep -q 'passing over the snapshot of step 6 in memory: .*rank_0001.h5' log || exit 2;"
        "grep -q 'resumed .*checkpoints/step_00000006 at step 6' log || exit 3; same run || exit 4;"
        "rm -r run; mv run2 run; mv memory2 $M; rm -r run/checkpoints/step_0000000[46];"
        "train 2 '' --run-dir run --resume auto || exit 5;"
        "grep -q 'in memory, at step 3' log || exit 6; same run");
}

Test(snapshots, of_which_the_configuration_is_cut_off_give_way_to_the_older_one)
{
    run("train 2 kill@backward:step=8:rank=0 --run-dir run;"
        "truncate -s 1900 $M/*/*/step_00000006/config.ini || exit 1;"
        "train 2 '' --run-dir run --resume auto || exit 2;"
        "grep -q 'passing over the snapshot of step 6 in memory: .*config.ini' log || exit 3;"
        "grep -q 'in memory, at step 3' log || exit 4; same run");
}

Test(snapshots, older_than_the_newest_checkpoint_are_not_taken)
{
    run("train 2 kill@backward:step=9:rank=1 --run-dir run --checkpoint-interval 4 --set "
        "logging.checkpoint_async=false;"
        "test -e $M/*/*/step_00000006 && test -e run/checkpoints/step_00000008 || exit 1;"
        "train 2 '' --run-dir run --resume auto || exit 2;"
        "grep -q 'resumed .*checkpoints/step_00000008 at step 8' log || exit 3; same run");
}

Test(snapshots, of_another_run_are_named_and_neither_used_nor_removed)
{
    run("train 2 kill@backward:step=8:rank=0 --run-dir other; before=$(cd $M; find . -type f | "
        "sort | xargs "
        "sha256sum);"
        "train 2 '' --run-dir run --resume auto || exit 1; ! grep -q resumed log || exit 2;"
        "id=$(ls $M); test $(grep -c \"snapshots of other runs lie in .*: $id\" log) = 1 || exit 3;"
        "test \"$before\" = \"$(cd $M; find . -type f | sort | xargs sha256sum)\" || exit 4;"
        "train 2 '' --run-dir other --resume auto || exit 5; grep -q 'in memory, at step 6' log || "
        "exit 6;"
        "same other");
}

Test(snapshots,
     of_another_run_are_removed_once_it_has_a_checkpoint_as_new_and_nobody_holds_its_lock)
{
    run("train 2 kill@backward:step=8:rank=0 --run-dir other; cp -r $M memory2; id=$(ls $M);"
        "train 2 '' --run-dir other --resume auto || exit 1; test ! -e $M || exit 2;"
        "cp -r memory2 $M; touch other/run.lock; train 2 '' --run-dir run || exit 3;"
        "test -e $M/$id/*/step_00000006 || exit 4; rm -r run other/run.lock;"
        "train 2 '' --run-dir run || exit 5;"
        "grep -q \"removed those of run $id .*other has a checkpoint\" log || exit 6; same run");
}

Test(snapshots, of_a_branch_that_is_given_up_are_removed)
{
    run("train 2 kill@backward:step=11:rank=0 --run-dir run --checkpoint-interval 4 --set "
        "logging.checkpoint_async=false;"
        "test -e $M/*/*/step_00000009 || exit 1;"
        "train 2 kill@backward:step=6:rank=0 --run-dir run --resume run/checkpoints/step_00000004;"
        "test ! -e $M/*/*/step_00000009 || exit 2; train 2 '' --run-dir run --resume auto || exit "
        "3;"
        "grep -q 'at step 4' log || exit 4; same run");
}

Test(snapshots, of_a_directory_that_was_copied_stay_those_of_the_original)
{
    run("train 2 kill@snapshot_written:step=9:rank=0 --run-dir run --checkpoint-interval 5 --set "
        "logging.checkpoint_async=false; cp -r run run2;"
        "mkdir -p other; cp -r run other;" /* where the same relative path is another directory */
        "for r in run2 other/run; do (cd $(dirname $r) && train 2 '' --run-dir ${r#*/} --resume "
        "auto) || exit 1; mv -f other/log log 2> no; test -e $M/*/*/step_00000006 || exit 2;"
        " grep -q 'resumed .*checkpoints/step_00000005 at step 5' log || exit 3;"
        " test $(grep -c \"none is resumed: those of run .* are of $D/run, which\" log) = 1 || "
        "exit "
        "4; done;"
        "train 2 '' --run-dir run --resume auto || exit 5; grep -q 'in memory, at step 6' log || "
        "exit "
        "6;"
        "same run && test $(state run2) = $(state run)");
}

/* Host1 has a whole snapshot of step 6 when the run goes back to step 4 on host0 alone. */
Test(snapshots, of_a_branch_that_was_given_up_while_their_host_was_away_are_not_used)
{
    run("unshare --uts true || exit 77;"
        "hosts 4 kill@snapshot_written:step=9:rank=3 --run-dir run --checkpoint-interval 4 --set "
        "logging.checkpoint_async=false;"
        "test -e $M/*/host1/step_00000006/copy_0001.h5 || exit 1;"
        "hosts 2 kill@backward:step=6:rank=0 --run-dir run --resume run/checkpoints/step_00000004;"
        "test -e $M/*/host1/step_00000006 && test ! -e $M/*/host0/step_00000006 || exit 2;"
        "grep -qx 'host1 4' run/snapshot_hosts || exit 3;"
        "hosts 4 '' --run-dir run --resume auto || exit 4;"
        "grep -q 'resumed .*checkpoints/step_00000004 at step 4' log || exit 5;"
        "grep -q 'host host1 was away: what it holds of steps after 4' log || exit 6; same run");
}

Test(snapshots, of_hosts_whose_long_names_differ_in_the_last_letter_lie_apart)
{
    run("unshare --uts true || exit 77; N=$(printf 'h%.0s' $(seq 63)); export N;"
        "ND_FAULT=${S}kill@snapshot_written:step=9:rank=1 mpirun --oversubscribe -np 2 unshare "
        "--uts sh -c 'hostname $N$OMPI_COMM_WORLD_RANK; exec \"$0\" \"$@\"' $F --config $C $SET "
        "--run-dir run > log 2>&1; test -e $M/*/${N}0/step_00000006/copy_0001.h5 || exit 1;"
        "test -e $M/*/${N}1/step_00000006/copy_0000.h5");
}

Test(snapshots, on_a_disk_are_said_once)
{
    run("case $(stat -f -c %T .) in tmpfs | ramfs) exit 0;; esac; W='snapshots go to a disk';"
        "train 2 '' --run-dir run --resume auto || exit 1; test $(grep -c \"$W\" log) = 1 || exit "
        "2;"
        "grep -q \"warning: $W: .* snapshot_dir = $M on host $(hostname) is not in\" log || exit 3;"
        "same run || exit 4; rm -r run; test $(stat -f -c %T /dev/shm) = tmpfs || exit 0;"
        "M=/dev/shm/nd_test.$$; train 2 '' --run-dir run --set logging.snapshot_dir=$M || exit 5;"
        "! grep \"$W\" log && same run");
}

Test(snapshots, without_room_are_said_once_and_training_goes_on)
{
    run("mkdir $M && mount -t tmpfs -o size=64k tmpfs $M || exit 77;"
        "train 2 '' --run-dir run; code=$?; umount $M; rmdir $M; test $code = 0 || exit 1;"
        "test $(grep -c 'warning: no snapshot of step 3: .*training continues' log) = 1 || exit 2;"
        "test $(grep -c 'warning: no snapshot' log) = 1 || exit 3; same run");
}

Test(snapshots, beyond_snapshot_memory_are_off_and_the_limit_is_named)
{
    run("SET=\"$SET --set model.hidden_dim=128\"; rm -r whole; train 2 '' --run-dir whole || exit "
        "1;"
        "train 2 '' --run-dir run --set logging.snapshot_memory=1 || exit 2;"
        "test $(grep -c 'warning: no snapshots: they need .* MiB on host .*snapshot_memory allows "
        "1' log) = 1 "
        "|| exit 3; same run && $B plan --config $C $SET --ranks 2 | grep -q '^snapshots (MiB)'");
}

#define RUN                                                                                        \
    "R() { ND_PROGRAM=$P ND_MPIRUN_OPTIONS=--oversubscribe bash " ND_SOURCE_DIR                    \
    "/launch/run.sh \"$@\" > out 2>&1; };"                                                         \
    "printf '#!/bin/sh\necho run\n' > says_run; chmod +x says_run;"
/* What a stand-in for the program begins with: it says where the run is, as the program does. */
#define STAND_IN "#!/bin/sh\ncase \"$*\" in *--print-run-dir) echo run; exit;; esac\n"

Test(run_script, starts_again_after_a_lost_rank_and_reaches_the_same_state,
     .init = nd_test_run_setup, .fini = nd_test_run_teardown)
{
    run(RUN "P=$F; export ND_FAULT=kill@backward:step=8:rank=1;"
            "R --np 2 --max-restarts 1 -- --config $C $SET --run-dir run; code=$?; cp out log;"
            "test $code = 137 || exit 1; test $(grep -c 'run.sh: start' out) = 2 || exit 2;"
            "grep -q 'giving up after 1 restarts' out || exit 3;"
            "export ND_FAULT=; R --np 2 -- --config $C $SET --run-dir run || exit 4; cp out log;"
            "grep -q 'in memory, at step 6' out || exit 5; same run");
}

/* Ctrl-C goes to all processes of the terminal's foreground group. */
Test(run_script, saves_and_stops_at_ctrl_c, .init = nd_test_run_setup, .fini = nd_test_run_teardown)
{
    run("export ND_PROGRAM=$F ND_MPIRUN_OPTIONS=--oversubscribe ND_FAULT=$S;"
        "env --default-signal=INT setsid bash " ND_SOURCE_DIR
        "/launch/run.sh --np 2 -- --config $C "
        "$SET --run-dir run > log 2>&1 & pid=$!; for i in $(seq 600); do "
        "grep -qs '\"step\": *4,' run/metrics.jsonl && break; sleep 0.05; done;"
        "kill -INT -$pid; wait $pid; test $? = 75 || exit 1; grep -q 'saving, to stop' log || exit "
        "2;"
        "test -e run/checkpoints/latest && test ! -e $M || exit 3;"
        "train 2 '' --run-dir run --resume auto || exit 4; same run");
}

/* A stand-in for the program ends with the codes that a file lists. */
Test(run_script, goes_by_the_exit_code_and_counts_restarts_without_progress,
     .init = nd_test_run_setup, .fini = nd_test_run_teardown)
{
    run(RUN
        "cat > fake <<'END'\n" STAND_IN "code=$(head -n 1 codes); sed -i 1d codes\n"
        "echo \"$@\" >> calls; exit ${code:-0}\nEND\nchmod +x fake; P=$D/fake; mkdir run;"
        "try() { printf '%s\\n' $1 > codes; : > calls; R --launch env --max-restarts 2 "
        "--run-dir run;"
        " code=$?; cp out log; test $code = $2 && test $(wc -l < calls) = $3; };"
        "for c in 0 2 3 4 6 75 1 127 243 255; do try \"$c 5\" $c 1 || exit $((c % 99 + 1)); done;"
        "for c in 5 134 137 139 205; do try \"$c 0\" 0 2 || exit 70; done;"
        "try '5 255 0' 0 3 && try '5 243 0' 0 3 || exit 78; try '5 5 5 5' 5 3 || exit 71; grep -q "
        "'giving up after 2 "
        "restarts' out || exit 72;"
        "test $(grep -c 'step 0; starting again at once' out) = 1 || exit 74;"
        "grep -q 'again in 1 s, restart 2 of 2 in a row without a step done' out || exit 75;"
        "R --launch env --np 2 x; test $? = 2 || exit 73; R --nq 2 -- x; test $? = 2 || exit 77; "
        "grep -q \"unknown option '--nq' before --\" out || exit 79; R --spare a x; test $? = 2 || "
        "exit 76;"
        "echo '# none' > empty; R --hostfile empty x; test $? = 2 && grep -q 'empty names no "
        "host' out");
}

/* The stand-in for the program dies before a step, then sets an earlier run aside and does one in
 * each start. */
Test(run_script, begins_as_it_did_until_a_step_is_done_and_counts_steps_of_its_own_run,
     .init = nd_test_run_setup, .fini = nd_test_run_teardown)
{
    run(RUN "mkdir run; echo '; run_id = old' > run/config.ini; echo '{\"step\": 1000}' > "
            "run/metrics.jsonl; cat > fake <<'END'\n" STAND_IN
            "echo \"$@\" >> calls; n=$(wc -l < calls); [ $n -gt 1 ] || exit 137\n"
            "[ $n -gt 2 ] || { echo '; run_id = new' > run/config.ini; : > run/metrics.jsonl; }\n"
            "echo '{\"step\": '$n'}' >> run/metrics.jsonl; [ $n -ge 6 ] || exit 137\nEND\n"
            "chmod +x fake; P=$D/fake;"
            "R --launch env --max-restarts 1 -- --run-dir run --resume none; code=$?; cp out log;"
            "test $code = 0 && test $(wc -l < calls) = 6 || exit 1;"
            "sed -n 2p calls | grep -q -- '--resume none' || exit 2;"
            "sed -n 3p calls | grep -q -- '--resume auto'");
}

/* The stand-in for the program does a step and is lost, four times; its directory is where the
 * program says, whatever the spelling of the configuration. */
Test(run_script, sees_progress_in_the_directory_that_the_program_names, .init = nd_test_run_setup,
     .fini = nd_test_run_teardown)
{
    run(RUN
        "cat > fake <<'END'\n#!/bin/sh\ncase \"$*\" in *--print-run-dir) exec $B \"$@\";; esac\n"
        "echo >> \"$AT/steps\"; n=$(wc -l < \"$AT/steps\"); echo '{\"step\": '$n'}' > "
        "\"$AT/metrics.jsonl\"; [ $n -gt 4 ] || exit 5\nEND\n"
        "chmod +x fake; export B AT; P=$D/fake;"
        "try() { rm -rf \"$AT\"; mkdir \"$AT\"; R --launch env --max-restarts 1 -- \"$@\"; code=$?;"
        " cp out log; test $code = 0 && test $(wc -l < \"$AT/steps\") = 5 &&"
        " grep -q 'ended with 5 after step 4; starting again at once' out; };"
        "printf '[logging]\nRun_Dir = \"far;off\" ; away\n' > my.ini;"
        "AT='far;off'; try --config my || exit 1;"
        "AT=here; try --config my --set LOGGING.run_dir=here || exit 2;"
        "AT='a place'; try --set=logging.run_dir=x --config my.ini --run-dir='a place' || exit 3;"
        "R --launch env -- --config missing; test $? = 2 && grep -q missing out");
}

/* Stand-ins for mpirun, which ends with 1 after a step, and for what asks whether a host
 * is there. */
Test(run_script, starts_again_on_the_hosts_that_are_left_when_the_launcher_fails_with_a_host,
     .init = nd_test_run_setup, .fini = nd_test_run_teardown)
{
    run(RUN "mkdir -p bin run; cat > bin/mpirun <<'END'\n#!/bin/sh\n"
            "echo \"$@\" >> calls; echo '{\"step\": '$(wc -l < calls)'}' >> run/metrics.jsonl;"
            "[ ! -e lose ] || mv lose lost; [ $(wc -l < calls) -ne 1 ]\nEND\n"
            "printf '#!/bin/sh\\n[ \"$1\" = a ] || [ ! -e lost ]\\n' > bin/agent; chmod +x bin/*;"
            "export PATH=$D/bin:$PATH ND_AGENT=$D/bin/agent P=$D/says_run;"
            "try() { : > calls; rm -f run/metrics.jsonl; echo '{\"step\": 0}' > run/metrics.jsonl;"
            " R --hosts a,b --run-dir run; code=$?; cp out log; };"
            "try; test $code = 1 && test $(wc -l < calls) = 1 || exit 1;"
            "touch lose; try; test $code = 0 && test $(wc -l < calls) = 2 || exit 2;"
            "grep -q 'host b does not answer' out || exit 3; tail -n 1 calls | grep -q -- '--host "
            "a:1 ' || exit 4; grep -q 'ended with 1 after step 1; starting again at once' out");
}

/* The stand-in for mpirun loses b at first, and runs on the two hosts that are left. */
Test(run_script, takes_a_spare_host_in_the_place_of_a_lost_one, .init = nd_test_run_setup,
     .fini = nd_test_run_teardown)
{
    run(RUN "mkdir -p bin run; cat > bin/mpirun <<'END'\n#!/bin/sh\n"
            "echo \"$@\" >> calls; [ -e lost ] || { touch lost; exit 205; }\nEND\n"
            "printf '#!/bin/sh\\n[ \"$1\" != b ] || [ ! -e lost ]\\n' > bin/agent; chmod +x bin/*;"
            "export PATH=$D/bin:$PATH ND_AGENT=$D/bin/agent P=$D/says_run; : > calls;"
            "R --hosts a:2,b:2 --spare c:2,d:2 --run-dir run || exit 1; cp out log;"
            "grep -q 'host b does not answer' out && test $(wc -l < calls) = 2 || exit 2;"
            "head -n 1 calls | grep -q -- '--host a:2,b:2 -np 4 ' || exit 3;"
            "tail -n 1 calls | grep -q -- '--host a:2,c:2 -np 4 '");
}

/* The stand-in for mpirun loses b at first, then runs on a until it is asked to stop, and ends well
 * with both. */
Test(run_script, takes_a_host_back_as_soon_as_it_answers, .init = nd_test_run_setup,
     .fini = nd_test_run_teardown)
{
    run(RUN
        "mkdir -p bin run; cat > bin/mpirun <<'END'\n#!/bin/sh\n"
        "echo \"$@\" >> calls; n=$(wc -l < calls); echo '{\"step\": '$n'}' >> run/metrics.jsonl;"
        "[ $n -ne 1 ] || { touch lost; exit 205; }; [ $n -ne 2 ] || { rm lost;"
        " trap 'exit 75' USR1; while :; do sleep 0.05; done; }\nEND\n"
        "printf '#!/bin/sh\\n[ \"$1\" = a ] || [ ! -e lost ]\\n' > bin/agent; chmod +x bin/*;"
        "export PATH=$D/bin:$PATH ND_AGENT=$D/bin/agent P=$D/says_run;"
        "R --take-back x true; test $? = 2 || exit 1;"
        "R --hosts a,b --take-back 1 --run-dir run || exit 2; cp out log;"
        "test $(wc -l < calls) = 3 && grep -q 'host b answers again' out || exit 3;"
        "sed -n 2p calls | grep -q -- '--host a:1 ' || exit 4;"
        "sed -n 3p calls | grep -q -- '--host a:1,b:1 '");
}

/* Two ranks end what four on two hosts began. The other host is away and keeps its snapshots, until
 * it answers. */
Test(run_script, removes_what_a_lost_host_holds_when_the_run_has_ended_well_or_names_it,
     .init = nd_test_run_setup, .fini = nd_test_run_teardown)
{
    run(RUN
        "unshare --uts true || exit 77;"
        "hosts 4 kill@snapshot_written:step=9:rank=3 --run-dir run;"
        "grep -q \"^host1 $M/[0-9a-f]*/host1$\" run/snapshot_hosts || exit 1;"
        "mkdir -p bin; printf '#!/bin/sh\\nhostname host0; exec \"$@\"\\n' > bin/on_host0;"
        "printf '#!/bin/sh\\n[ ! -e away ] || exit 255; shift; exec sh -c \"$*\"\\n' > bin/agent;"
        "chmod +x bin/*; touch away; export ND_AGENT=$D/bin/agent P=$F;"
        "end() { R --launch \"mpirun --oversubscribe -np 2 unshare --uts $D/bin/on_host0\" -- "
        "--config $C $SET --run-dir $1; code=$?; cp out log; return $code; };"
        "end run || exit 2; grep -q \"host1 does not answer .*agent host1 'rm -rf $M/\" out || "
        "exit 3;"
        "grep -q ^host1 run/snapshot_hosts && ! grep -q ^host0 run/snapshot_hosts || exit 4;"
        "test -e $M/*/host1 && test ! -e $M/*/host0 || exit 5;"
        "rm away; cp -r run copy; P=$D/says_copy; printf '#!/bin/sh\\necho copy\\n' > says_copy; "
        "chmod +x says_copy; end copy || exit 6;"
        "grep -q 'copy is a copy of .*/run, so' out || exit 7; P=$F; end copy || exit 10;"
        "test -e $M/*/host1 || exit 11;"
        "end run || exit 8; grep -q 'removed the snapshots of host host1' out || exit 9;"
        "test ! -e run/snapshot_hosts && same run");
}
