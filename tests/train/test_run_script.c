/* launch/run.sh where its output, the first checkpoint or a lost host fails. Stand-ins take the
 * program's place. */
#include "support/run_files.h"
#include "support/support.h"

TestSuite(run_script_faults, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

/* fake TEXT: $D/fake, a stand-in that appends a line to `calls` in each start, then runs TEXT, with
 * the number of starts in $n. */
#define SETUP                                                                                      \
    "export ND_PROGRAM=$D/fake; mkdir run; RUN=" ND_SOURCE_DIR "/launch/run.sh;"                   \
    "fake() { : > calls; printf '#!/bin/sh\\ncase \"$*\" in *--print-run-dir) echo run; exit;; "   \
    "esac\\necho >> calls; n=$(wc -l < calls)\\n%s\\n' \"$1\" > fake; chmod +x fake; };"

static void run(const char *script)
{
    nd_test_run_scripts(SETUP, script);
}

Test(run_script_faults, a_full_disk_or_a_pipe_that_nobody_reads_does_not_end_the_supervision)
{
    run("fake '[ $n -ge 3 ] || exit 5; echo done > end';"
        "bash $RUN --launch env x > /dev/full 2>&1 || exit 1; test -e end || exit 2;"
        "fake '[ $n -ge 3 ] || exit 5; echo much; echo much'; mkfifo pipe; (exec < pipe) &"
        "bash $RUN --launch env x > pipe 2>&1 || exit 3; test $(wc -l < calls) = 3");
}

/* Ctrl-C ends tee too, before the script has said that it saves. */
Test(run_script_faults, ctrl_c_saves_the_run_although_it_ends_tee_as_well)
{
    run("fake 'trap \"echo > saved; exit 75\" USR1; echo > ready; while :; do sleep 0.05; done';"
        "env --default-signal=INT setsid bash -c \"bash $RUN --launch env x 2>&1 | tee log\" & "
        "pid=$!; for i in $(seq 200); do [ ! -e ready ] || break; sleep 0.05; done;"
        "kill -INT -$pid; for i in $(seq 200); do [ ! -e saved ] || exit 0; sleep 0.05; done;"
        "kill -KILL -$pid; exit 1");
}

/* Without a checkpoint each start is a new run, which comes no further than the one before. */
Test(run_script_faults, starts_that_begin_anew_and_come_no_further_are_without_progress)
{
    run("fake 'echo \"; run_id = $n\" > run/config.ini; echo \"{\\\"step\\\": 5}\" > "
        "run/metrics.jsonl; [ $n -ge 9 ] || exit 137';"
        "bash $RUN --launch env --max-restarts 1 x > out 2>&1; test $? = 137 || exit 1;"
        "test $(wc -l < calls) = 2 && grep -q 'giving up after 1 restarts' out");
}

/* A lost host's shell may be any POSIX shell. */
Test(run_script_faults, what_a_lost_host_holds_is_removed_whatever_its_name_or_stays_listed)
{
    run("fake :; mkdir bin; printf '#!/bin/sh\\nshift; exec sh -c \"$*\"\\n' > bin/agent;"
        "printf '#!/bin/sh\\nexit 1\\n' > bin/rm; chmod +x bin/*; export LC_ALL=C;"
        "export ND_AGENT=$D/bin/agent; of=\"$D/caf\303\251 a'b/0123456789abcdef\";"
        "mkdir -p \"$of/host1/step_00000006\"; printf 'host1 %s/host1\\n' \"$of\" > list;"
        "cp list run/snapshot_hosts; PATH=$D/bin:$PATH bash $RUN --launch env x > out 2>&1 || "
        "exit 1;"
        "grep -q 'host1 does not answer' out && grep -q host1 run/snapshot_hosts || exit 2;"
        "eval \"$(sed -n 's/.*; once it does: //p' out)\" || exit 3; test ! -e \"$of\" || exit 4;"
        "mkdir -p \"$of/host1\"; cp list run/snapshot_hosts; bash $RUN --launch env x > out 2>&1;"
        "test ! -e \"$of\" && test ! -e run/snapshot_hosts || exit 5; grep -q 'removed the snap' "
        "out");
}

/* The stand-in for mpirun loses b at first. The ranks then go on without the script. */
Test(run_script_faults, nobody_stops_the_run_for_a_host_that_is_back_when_the_script_was_killed)
{
    run("fake :; mkdir bin; cat > bin/mpirun <<'END'\n#!/bin/sh\necho >> calls; trap 'touch hit' "
        "USR1; [ $(wc -l < calls) -gt 1 ] || { touch lost; exit 205; }\n"
        "for i in $(seq 40); do sleep 0.1; done\nEND\n"
        "printf '#!/bin/sh\\n[ $1 = a ] || [ ! -e lost ]\\n' > bin/agent; chmod +x bin/*;"
        "export PATH=$D/bin:$PATH ND_AGENT=$D/bin/agent;"
        "bash $RUN --hosts a,b --take-back 1 $D > out 2>&1 & pid=$!; for i in $(seq 100); do "
        "[ $(wc -l < calls) -lt 2 ] || break; sleep 0.05; done; sleep 0.3; kill -KILL $pid;"
        "rm lost; sleep 2.5; test ! -e hit && ! pgrep -f \"take-back 1 $D\"");
}

/* Behind `tee`, say. */
Test(run_script_faults, a_signal_between_two_starts_ends_what_reads_the_output)
{
    run("fake 'exit 5'; mkdir bin; printf '#!/bin/sh\\ncase $1 in 1) set 20;; esac\\nexec "
        "/bin/sleep $1\\n' > bin/sleep; chmod +x bin/sleep;"
        "{ PATH=$D/bin:$PATH bash $RUN --launch env x 2>&1 & echo $! > pid; } | timeout 8 cat > "
        "out &"
        "reader=$!; for i in $(seq 200); do grep -qs 'again in 1 s' out && break; sleep 0.05; done;"
        "kill $(cat pid); wait $reader");
}
