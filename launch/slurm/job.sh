# Shared by the batch scripts: starts the ranks, and requeues the job so that it resumes where it
# stopped. Sourced with the training's arguments.
#
# The program saves and leaves with 75 when it gets SIGUSR1 or SIGTERM, and `--resume auto`, the
# default here, resumes from the newest complete checkpoint on any number of ranks. A requeued job
# does so once its run has begun, whatever --resume is given for the first start. So:
#   before the time limit   Slurm sends SIGUSR1 here (--signal=B:USR1@...), which is forwarded; the
#                           job is requeued
#   preempted               Slurm sends SIGTERM to the ranks and requeues the job (--requeue)
#   a rank was lost         the ranks are started again in the same job (launch/run.sh), as long as
#                           steps are completed in between
#   a node failed           Slurm ends and requeues the job, which resumes from the newest
#                           checkpoint
#   cancelled               saved, and not started again

if [ -z "${SLURM_JOB_ID:-}" ]; then
    echo "$0: this is for sbatch (docs/slurm.md); without Slurm start launch/run.sh" >&2
    exit 2
fi

nd_say() { printf '%s job %s: %s\n' "$(date '+%F %T')" "$SLURM_JOB_ID" "$*"; }

# Threads and cores of a rank; without --cpus-per-task the program shares the node's cores itself.
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$SLURM_CPUS_PER_TASK}
    export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # which srun does not take over from sbatch
fi

case $ND_LAUNCHER in
# A rank that ends must not have the others killed while they save; nor may they wait for it for
# ever.
srun) read -ra nd_launch <<<"srun --kill-on-bad-exit=0 --wait=60 $ND_SRUN_OPTIONS" ;;
mpirun) read -ra nd_launch <<<"mpirun $ND_MPIRUN_OPTIONS" ;;
*)
    nd_say "ND_LAUNCHER is '$ND_LAUNCHER'; expected srun or mpirun (launch/slurm/site.sh)"
    exit 2
    ;;
esac

nd_say "start $((${SLURM_RESTART_COUNT:-0} + 1)) on $SLURM_JOB_NODELIST, $SLURM_NTASKS ranks"
nd_again=()
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] && nd_run=$("$ND_PROGRAM" train "$@" --print-run-dir) &&
    grep -qx "; slurm_job = $SLURM_JOB_ID" "$nd_run/config.ini" 2>/dev/null; then
    nd_again=(--resume auto)
fi
nd_say "${nd_launch[*]} $ND_PROGRAM $* ${nd_again[*]}"
nd_started=$SECONDS
# Started again within the job while its nodes are there, from snapshots in memory where there are
# some.
"$ND_SLURM/../run.sh" --max-restarts "$ND_MAX_RESTARTS" --launch "${nd_launch[*]}" -- "$@" "${nd_again[@]}" &
nd_child=$!
trap 'nd_say "time is nearly up: saving"; kill -USR1 "$nd_child"' USR1
trap 'nd_say "told to end"' TERM # the ranks are told by Slurm; here it must only not end the script

# A signal ends `wait`, not the ranks.
while :; do
    wait "$nd_child"
    nd_code=$?
    kill -0 "$nd_child" 2>/dev/null || break
done
nd_say "ended with $nd_code after $((SECONDS - nd_started)) s"

# Only a job that nobody ends from outside puts itself back: a cancelled one stays so, and of a
# preempted one Slurm takes care.
# In an array the number of the job that is its last task names the whole array.
nd_requeue() {
    local state id=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
    id=${id:-$SLURM_JOB_ID}
    state=$(scontrol show job "$id" | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p')
    if [ "$state" = RUNNING ]; then
        nd_say "back into the queue: $1"
        scontrol requeue "$id" && sleep 60 # until Slurm ends this script
    fi
}

case $nd_code in
0) ;;
75) nd_requeue 'saved' ;;
5 | 129 | 1[3-9][0-9] | 205)
    # A rank, a node or the network was lost, which Slurm may not have noticed yet. What fails at
    # once again and again is no accident.
    if [ $((SECONDS - nd_started)) -ge 300 ] || [ "${SLURM_RESTART_COUNT:-0}" -lt 3 ]; then
        nd_requeue 'a rank was lost'
    fi
    ;;
esac
exit "$nd_code"
