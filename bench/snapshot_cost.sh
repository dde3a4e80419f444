#!/usr/bin/env bash
# What a snapshot costs, in processor time (user and system, of all threads), which other programs
# on the machine disturb far less than the clock. Trains alternately without and with a snapshot
# every INTERVAL steps, prints the mean difference of the pairs with its standard error, and what
# that is of a step. What a snapshot costs does not depend on the batch: the pairs train on one
# sequence a rank, so that what two runs differ by anyway is small, and a step of the whole batch is
# timed apart. One rank alone, because ranks that wait for each other spin; or RANKS that are
# workers apart and so hardly wait, each with a copy on the next: all ranks together.
#
#   bench/snapshot_cost.sh DIR [STEPS [INTERVAL [PAIRS [RANKS]]]]
#
# 40 steps, a snapshot in every one, 8 pairs and 1 rank where nothing is given.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/../launch/shared.sh"
options 'DIR...' "$@"
[ ${#operands[@]} -gt 0 ] || usage 'expected a directory'
set -- "${operands[@]}"
dir=$1 steps=${2:-40} interval=${3:-1} pairs=${4:-8} ranks=${5:-1} launch=() set=()
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
allow_root
if [ "$ranks" -gt 1 ]; then
    launch=(mpirun --bind-to none -np "$ranks")
    set=(--set "dist.workers=$ranks" --set dist.sync_every=100000 --set logging.snapshot_buddy=always)
fi
mkdir -p "$dir"

train() { # INTERVAL STEPS ARGUMENTS...
    local interval=$1 steps=$2
    shift 2
    rm -rf "$dir/run"
    "${launch[@]}" "$root/build/release/nanochat_dist" --config "$root/configs/e3/small/baseline.ini" \
        --dataset synthetic --n-samples 100000 --run-dir "$dir/run" --total-steps "$steps" --checkpoint-interval 0 \
        --set logging.eval_interval=0 --set logging.checkpoint_at_end=false \
        --set logging.snapshot_interval="$interval" \
        --set logging.snapshot_dir="/dev/shm/nd_snapshot_cost.$$" --set logging.tensorboard=false "${set[@]}" "$@" \
        >"$dir/log" 2>&1
}
cpu() { # as train: seconds
    TIMEFORMAT='%U %S'
    { time train "$@"; } 2>&1 | awk '{ print $1 + $2 }'
}
grep -m 1 'model name' /proc/cpuinfo
small=(--set "training.batch_size=$ranks" --set training.micro_batch_size=1)
start=$(cpu 0 2)
step=$(cpu 0 12 | awk -v start="$start" '{ print 1e3 * ($1 - start) / 10 }')
for ((pair = 0; pair < pairs; pair++)); do
    echo "$(cpu 0 "$steps" "${small[@]}") $(cpu "$interval" "$steps" "${small[@]}")"
done | tee "$dir/pairs" | awk -v step="$step" -v steps="$steps" -v every="$interval" '
    { d = 1e3 * ($2 - $1) / int(steps / every)
      printf "a snapshot %+.1f ms\n", d
      n++; sum += d; squares += d * d }
    END {
        mean = sum / n; error = n > 1 ? sqrt((squares - n * mean * mean) / (n - 1) / n) : 0
        printf "%d pairs: a snapshot takes %.1f +- %.1f ms of processor time, ", n, mean, error
        printf "%.2f +- %.2f %% of a step of %.1f ms; ", 100 * mean / step, 100 * error / step, step
        printf "one every 10 steps %.2f +- %.2f %%\n", 10 * mean / step, 10 * error / step
    }'
