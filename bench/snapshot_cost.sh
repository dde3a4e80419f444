#!/usr/bin/env bash
# What snapshots cost: trains alternately without and with them, and prints for each run the processor time of all
# ranks a step, which other programs disturb less than the clock, the median step and what the loop waited for snapshots.
# With INTERVAL 2 the difference is half of a snapshot, far above the noise.
#
#   bench/snapshot_cost.sh DIR [RANKS [STEPS [INTERVAL [ROUNDS]]]]     2 ranks, 40 steps, every 2, 3 rounds
set -euo pipefail
case ${1:-} in
--help | -h | '')
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
    exit 0
    ;;
esac
root=$(cd "$(dirname "$0")/.." && pwd)
dir=$1 ranks=${2:-2} steps=${3:-40} interval=${4:-2} rounds=${5:-3}
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
mkdir -p "$dir"

train() { # NAME INTERVAL STEPS
    rm -rf "${dir:?}/$1"
    mpirun --oversubscribe -np "$ranks" "$root/build/release/nanochat_dist" --config "$root/configs/e3/small/baseline.ini" \
        --dataset synthetic --n-samples 100000 --run-dir "$dir/$1" --total-steps "$3" --checkpoint-interval 0 \
        --set logging.eval_interval=0 --set logging.checkpoint_at_end=false --set logging.snapshot_interval="$2" \
        --set logging.tensorboard=false >"$dir/log" 2>&1
}
cpu() { # NAME INTERVAL STEPS: seconds of all ranks
    TIMEFORMAT='%U %S'
    { time train "$@"; } 2>&1 | awk '{ print $1 + $2 }'
}
grep -m 1 'model name' /proc/cpuinfo
for ((round = 0; round < rounds; round++)); do
    for every in 0 "$interval"; do
        short=$(cpu start 0 2)
        whole=$(cpu run "$every" "$((steps + 2))")
        python3 - "$dir/run/metrics.jsonl" "$every" "$short" "$whole" "$steps" <<'END'
import json, statistics, sys
lines = [json.loads(line) for line in open(sys.argv[1])][2:]
print(f"snapshots every {sys.argv[2]:>2}: {(float(sys.argv[4]) - float(sys.argv[3])) / int(sys.argv[5]) * 1e3:.1f} ms of "
      f"processors a step, median step {statistics.median(l['step_ms'] for l in lines):.1f} ms, "
      f"waited {sum(l['save_ms'] for l in lines) / len(lines):.2f} ms a step")
END
    done
done
