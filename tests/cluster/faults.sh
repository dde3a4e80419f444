#!/usr/bin/env bash
# What can befall a job in a cluster, one after another: a rank killed, preempted, told that its
# time is nearly up, a node lost; then the same under mpirun, and cancelled. Sourced by
# two_nodes.sh:
#
#   tests/cluster/two_nodes.sh DIR tests/cluster/faults.sh CHECKOUT PROGRAM CONFIG RUN
#
# RUN is what launch/slurm/cpu.sbatch leaves in the end, and RUN_mpirun what it leaves with mpirun
# when it is cancelled on the way.
set -euo pipefail
if ! declare -F node_start >/dev/null; then
    . "$(dirname "$(readlink -f "$0")")/../../launch/shared.sh"
    case ${1:-} in --help | -h) print_help && exit ;; esac
    usage 'two_nodes.sh sources this'
fi
checkout=$1 run=$4
arguments=(--config "$3" --run-dir "$run")
export ND_PROGRAM=$2
# Ranks outnumber the cores, and others want them too.
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
. "$checkout/launch/slurm/site.sh"

say() { printf '[%d s] %s\n' "$SECONDS" "$*"; }
die() {
    say "FAILED: $*"
    squeue || true
    cat "$dir"/job*.log
    tail -n 20 "$dir/slurmctld.log"
    exit 1
}
state() { scontrol show job "$job" | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p'; }
wait_for() { # what, seconds, command...
    local what=$1 i limit=$(($2 * 10))
    shift 2
    for ((i = 0; i < limit; i++)); do
        ! "$@" || return 0
        sleep 0.1
    done
    die "waited in vain for: $what (job $job is $(state))"
}
is() { [ "$(state)" = "$1" ]; }
steps_done() { if [ -e "$1/metrics.jsonl" ]; then wc -l <"$1/metrics.jsonl"; else echo 0; fi; }
has_steps() { [ "$(steps_done "$1")" -ge "$2" ]; }
submit() { # log, sbatch's options and the script's arguments...
    local log=$1
    shift
    job=$(sbatch --parsable --nodes=2 --cpus-per-task=1 --output="$dir/$log" "$@")
}
# Trains a few steps beyond those done.
some_steps() { wait_for 'some steps' 60 has_steps "$1" $(($(steps_done "$1") + 8)); }
# Slurm keeps a requeued job back for two minutes, so that what it revoked cannot be taken for new.
start_again() {
    wait_for 'the job is back in the queue' 30 is PENDING
    nodes_wait || die 'no nodes'
    sleep 1.5
    scontrol update JobId="$job" StartTime=now
    wait_for 'the job runs again' 30 is RUNNING
}

started() { grep -q "run.sh: start $1:" "$dir/job.log"; }

submit job.log "$checkout/launch/slurm/cpu.sbatch" "${arguments[@]}" \
    --set logging.checkpoint_interval=40 \
    --set logging.snapshot_interval=1 --set "logging.snapshot_dir=$dir/memory" \
    --set dist.timeout_seconds=10
some_steps "$run"
say 'a rank killed'
kill -KILL "$(pgrep -n -f "^$ND_PROGRAM .*--run-dir $run ")"
wait_for 'the job starts its ranks again' 60 started 2
some_steps "$run"
say 'the job has gone on'
scontrol show job "$job" | grep -q ' Restarts=0 ' || die 'Slurm has restarted the job'
grep -q ' resumed .*a snapshot in memory' "$dir/job.log" || die 'not resumed from memory'
say 'preempted by a job of the partition high'
sbatch --parsable --partition=high --nodes=2 --output=/dev/null --wrap 'sleep 1' >/dev/null
start_again
some_steps "$run"
say 'told that the time is nearly up'
scancel --signal=USR1 --batch "$job"
start_again
some_steps "$run"
say 'node n2 lost'
node_kill 2
rm -rf "$dir"/memory/*/n2
wait_for 'Slurm finds the node dead' 60 is PENDING
say 'Slurm has found it out'
node_start 2
start_again
wait_for 'the job ends' 120 is COMPLETED
say 'done'
grep -q 'back into the queue: saved' "$dir/job.log" || die 'the job did not put itself back'
[ "$(grep -c ' resumed ' "$dir/job.log")" -ge 4 ] || die 'not resumed four times'
[ "$(grep -c ' stopped on a signal' "$dir/job.log")" -ge 2 ] || die 'not saved on both signals'
[ ! -e "$dir/memory" ] || die 'snapshots are left'

say 'with mpirun; --resume none is for the first start alone'
export ND_LAUNCHER=mpirun
submit job_mpirun.log "$checkout/launch/slurm/cpu.sbatch" --config "$3" --run-dir "${run}_mpirun" \
    --resume none
some_steps "${run}_mpirun"
scancel --signal=USR1 --batch "$job"
start_again
some_steps "${run}_mpirun"
say 'cancelled'
scancel "$job"
wait_for 'the job is gone' 30 is CANCELLED
sleep 1
is CANCELLED || die 'a cancelled job came back'
grep -q ' resumed ' "$dir/job_mpirun.log" || die 'not resumed under mpirun'
[ ! -e "${run}_mpirun/previous_001" ] || die 'begun anew by the second start'
say 'done'
